"""Make a search engine by its name."""

from __future__ import annotations

from importlib.util import find_spec

from earthvlm.embeddings.table import SceneTable
from earthvlm.search.engines.engine import SearchEngine
from earthvlm.search.engines.exact import ExactEngine

AUTO = "auto"
FAISS_ENGINES = ("faiss-sq8", "faiss-ivf", "faiss-hnsw")
EXACT_UP_TO = 1_000_000  # scenes; "auto" searches larger datasets with faiss


def make_engine(name: str, table: SceneTable) -> SearchEngine:
    """Make the engine named "auto", "exact", "faiss-KIND" or "milvus:URI".

    "auto" is exact up to a million scenes, and faiss-ivf beyond if faiss is installed. KIND is sq8,
    ivf or hnsw; see FaissEngine. URI is a local file as in milvus:scenes.db, or a server's address
    as in milvus:http://localhost:19530.

    Raises ValueError for an unknown name or a missing library, ConnectionError where Milvus does
    not answer.
    """
    if name == AUTO:
        large = len(table) > EXACT_UP_TO and find_spec("faiss") is not None
        name = "faiss-ivf" if large else "exact"
    kind, _, uri = name.partition(":")
    if name == "exact":
        return ExactEngine(table)
    if name in FAISS_ENGINES:
        from earthvlm.search.engines.faiss_engine import FaissEngine

        return FaissEngine(table, name.removeprefix("faiss-"), table.folder)
    if kind == "milvus" and uri:
        from earthvlm.search.engines.milvus_engine import MilvusEngine

        return MilvusEngine(table, uri)
    raise ValueError(
        f"there is no engine {name!r}; choose auto, exact, {', '.join(FAISS_ENGINES)} or milvus:URI"
    )
