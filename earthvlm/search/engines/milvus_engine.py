"""The Milvus engine: one client for a local file, a server or a cluster, chosen by URI.

A collection for each space holds the vectors and the columns that filters use, so that Milvus
applies filters itself. Its rows are those of the table. Needs the extra `milvus`.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.embeddings.table import SPACES, SceneTable
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.search.engines.engine import SIMILARITY_DECIMALS, Hits

if TYPE_CHECKING:
    from pymilvus import MilvusClient

# An API key or "user:password". The environment is not shown in process lists and logs, as command
# lines and addresses are.
TOKEN_VARIABLE = "EARTHVLM_MILVUS_TOKEN"
ANSWER_SECONDS = 10
INSERT_ROWS = 2_000
MAX_RESULTS = 16_384  # Milvus's own limit
# Unknown values, which match no filter: local files of Milvus have no null values.
NO_DEGREES = 999.0
NO_DAY = -(10**8)
_EPOCH = datetime.date(1970, 1, 1)


class MilvusEngine:
    """Finds the nearest rows with Milvus, whose index is exact or approximate.

    uri: a local file as in "scenes.db", or a server's address as in "http://localhost:19530".
    token: an API key or "user:password"; None takes `$EARTHVLM_MILVUS_TOKEN`, if it is set.
    """

    name = "milvus"

    def __init__(self, table: SceneTable, uri: str, token: str | None = None) -> None:
        """Connect, and fill this table's collections where they are incomplete.

        Raises:
            ValueError: pymilvus is not installed, the URI holds a password, or a collection has
                vectors of another size.
            ConnectionError: Milvus does not answer or refuses the token.
        """
        if "@" in urlsplit(uri).netloc:
            raise ValueError(
                "the address of Milvus holds a password, which process lists and logs would show; "
                f"set {TOKEN_VARIABLE} to user:password instead, and leave it out of the address"
            )
        try:
            from pymilvus import MilvusClient
        except ModuleNotFoundError as error:
            raise ValueError(
                "the engine milvus needs pymilvus: pip install 'earthvlm[milvus]'"
            ) from error
        self._table, self._uri = table, uri
        token = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
        with self._answering():
            self._client = MilvusClient(uri=uri, token=token, timeout=ANSWER_SECONDS)
            for space in SPACES:
                if table.present(space).any():
                    self._fill(self._client, space)

    def search(self, space: str, queries: np.ndarray, k: int, where: SceneFilter) -> list[Hits]:
        """See SearchEngine. Raises ValueError for more than MAX_RESULTS results."""
        self._table.check(where)
        if k > MAX_RESULTS:
            raise ValueError(
                f"Milvus returns at most {MAX_RESULTS:,} scenes for a search, and {k:,} were asked "
                "for; ask for fewer, or search with another engine"
            )
        if not self._table.present(space).any():
            return [Hits(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        with self._answering():
            answers = self._client.search(
                collection_name=self.collection(space),
                data=[query.tolist() for query in np.asarray(queries, np.float32)],
                limit=k,
                filter=write_filter(where, self._table),
                search_params={"metric_type": "IP"},
                timeout=ANSWER_SECONDS,
            )
            found = [[(hit["row"], hit["distance"]) for hit in answer] for answer in answers]
        return [
            Hits(
                np.array([row for row, _ in hits], np.int64),
                np.round(np.array([each for _, each in hits], np.float32), SIMILARITY_DECIMALS),
            )
            for hits in found
        ]

    def collection(self, space: str) -> str:
        """Return the name of a space's collection, which is unique to its vectors."""
        return f"earthvlm_{space}_{self._table.digest(space)}"

    def close(self) -> None:
        """Close the connection, and a local file."""
        self._client.close()

    def _fill(self, client: MilvusClient, space: str) -> None:
        from pymilvus import DataType

        name = self.collection(space)
        rows = self._table.rows(space)
        if client.has_collection(name):
            self._check_size(client, name)
            client.load_collection(name)
            (count,) = client.query(name, filter="", output_fields=["count(*)"])
            if count["count(*)"] == len(rows):
                return
            client.drop_collection(name)  # filling it was interrupted
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=SENTENCE_DIM)
        for field in ("split", "source"):
            schema.add_field(field, DataType.VARCHAR, max_length=65_535)
        for field in ("longitude", "latitude"):
            schema.add_field(field, DataType.DOUBLE)
        schema.add_field("day", DataType.INT64)
        index = client.prepare_index_params()
        index.add_index(field_name="vector", index_type="AUTOINDEX", metric_type="IP")
        client.create_collection(name, schema=schema, index_params=index)
        for first in range(0, len(rows), INSERT_ROWS):
            client.insert(name, self._entities(space, rows[first : first + INSERT_ROWS]))
        client.flush(name)
        client.load_collection(name)

    def _check_size(self, client: MilvusClient, name: str) -> None:
        fields = client.describe_collection(name)["fields"]
        size = next((f["params"].get("dim") for f in fields if f["name"] == "vector"), None)
        if size is None or int(size) != SENTENCE_DIM:
            raise ValueError(
                f"the collection {name} of {self._uri} has vectors of {size} numbers, not "
                f"{SENTENCE_DIM}; drop it, or give another URI"
            )

    def _entities(self, space: str, rows: np.ndarray) -> list[dict[str, Any]]:
        names = ("split", "source", "longitude", "latitude", "date")
        columns = [self._table.column(name).take(pa.array(rows)).to_pylist() for name in names]
        vectors = self._table.vectors(space)[rows]
        return [
            {
                "row": int(row),
                "vector": vector.tolist(),
                "split": split,
                "source": source or "",
                "longitude": NO_DEGREES if longitude is None else longitude,
                "latitude": NO_DEGREES if latitude is None else latitude,
                "day": NO_DAY if date is None else _count_days(date),
            }
            for row, vector, split, source, longitude, latitude, date in zip(
                rows, vectors, *columns, strict=True
            )
        ]

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from grpc import RpcError
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, RpcError, OSError) as error:
            if _is_refusal(error):
                raise ConnectionError(
                    f"Milvus at {self._uri} refuses this caller; set {TOKEN_VARIABLE} to an API "
                    "key or user:password that may read and write there"
                ) from error
            kind = type(error).__name__.lstrip("_")
            raise ConnectionError(
                f"Milvus at {self._uri} does not answer ({kind}); start it, or "
                "search with another engine"
            ) from error


def _is_refusal(error: BaseException | None) -> bool:
    """Whether Milvus answered that the token is missing, wrong or without the right."""
    from grpc import Call, StatusCode

    refusals = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)
    causes: list[BaseException] = []
    while error is not None and error not in causes:  # pymilvus raises some from themselves
        causes.append(error)
        error = error.__cause__
    return any(isinstance(cause, Call) and cause.code() in refusals for cause in causes)


def write_filter(where: SceneFilter, table: SceneTable) -> str:
    """Return a filter as an expression of Milvus; "" for none."""
    terms = []
    if where.split is not None:
        terms.append(f"split == {_quote(where.split)}")
    if where.source is not None:
        terms.append(f"source in {_quote(table.matching_sources(where.source))}")
    if where.bbox is not None:
        _, south, _, north = where.bbox
        terms.append(f"latitude >= {south!r} and latitude <= {north!r}")
        parts = [
            f"(longitude >= {west!r} and longitude <= {east!r})"
            for west, east in where.longitude_ranges
        ]
        terms.append(f"({' or '.join(parts)})")
    if where.first_date is not None:
        terms.append(f"day >= {_count_days(where.first_date)}")
    if where.last_date is not None:
        terms.append(f"day > {NO_DAY} and day <= {_count_days(where.last_date)}")
    return " and ".join(terms)


def _quote(value: str | list[str]) -> str:
    """Quote text for Milvus, which does not decode escaped non-ASCII letters."""
    return json.dumps(value, ensure_ascii=False)


def _count_days(date: datetime.date) -> int:
    return (date - _EPOCH).days
