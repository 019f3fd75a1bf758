"""Which search engine a name stands for."""

from __future__ import annotations

from importlib.util import find_spec

from earthvlm.embeddings.table import SceneTable
from earthvlm.search.engines import ExactEngine, SearchEngine

AUTO = "auto"


FAISS_ENGINES = ("faiss-sq8", "faiss-ivf", "faiss-hnsw")


EXACT_UP_TO = 1_000_000


def make_engine(name: str, table: SceneTable) -> SearchEngine:
    """Make the engine of a name: "auto", "exact", "faiss-KIND" or "milvus:URI".

    auto: exact up to a million scenes; beyond, faiss-ivf where faiss is installed. KIND: sq8, ivf
    or hnsw, see FaissEngine. URI: a local file as in milvus:scenes.db, or a server's address as in
    milvus:http://localhost:19530.

    Raises ValueError for an unknown name and without what the engine needs, ConnectionError where
    Milvus does not answer.
    """
    if name == AUTO:
        large = len(table) > EXACT_UP_TO and find_spec("faiss") is not None
        name = "faiss-ivf" if large else "exact"
    kind, _, uri = name.partition(":")
    if name == "exact":
        return ExactEngine(table)
    if name in FAISS_ENGINES:
        from earthvlm.search.faiss import FaissEngine

        return FaissEngine(table, name.removeprefix("faiss-"), table.folder)
    if kind == "milvus" and uri:
        from earthvlm.search.milvus import MilvusEngine

        return MilvusEngine(table, uri)
    raise ValueError(
        f"there is no engine {name!r}; choose auto, exact, {', '.join(FAISS_ENGINES)} or milvus:URI"
    )
