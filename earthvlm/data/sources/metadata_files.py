"""Folders with `metadata.jsonl`, `metadata.csv` or `metadata.parquet`, as Hugging Face reads them.

Each metadata file lies in a folder above its images. The column `file_name` is an image's path from
there; the other columns are those of `entries`. A column `split`, or else the folders' names
("train/metadata.jsonl"), say which split an entry is of.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from earthvlm.data.sources.entries import Entries, check_name, split_of_name
from earthvlm.data.sources.files import SourceFiles

NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
NAME_COLUMNS = ("file_name", "image", "image_path")


def find_metadata(names: Sequence[str]) -> list[str]:
    """Return the metadata files among these."""
    return [name for name in names if PurePosixPath(name).name in NAMES]


def read_metadata(files: SourceFiles, names: Sequence[str]) -> Entries:
    """Read metadata files. Raises ValueError, naming file and entry, for another form."""
    entries = Entries()
    for name in names:
        folder = PurePosixPath(name).parent
        split = split_of_name(str(folder)) or "train"
        for number, row in _read_rows(files, name):
            entries.add(name, number, row, _find_image(name, number, folder, row), split)
    return entries


def _find_image(name: str, number: int, folder: PurePosixPath, row: object) -> str | None:
    given = (row.get(column) for column in NAME_COLUMNS) if isinstance(row, dict) else ()
    image = next((value for value in given if value), None)
    if image is None:
        return None
    try:
        return str(folder / check_name(image))
    except ValueError as error:
        raise ValueError(f"{name}: entry {number} {error}.") from None


def _read_rows(files: SourceFiles, name: str) -> Iterator[tuple[int, object]]:
    path = files.fetch(name)
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        try:
            yield from enumerate(pq.read_table(path).to_pylist(), start=1)
        except (OSError, ValueError) as error:
            raise ValueError(f"{name} is no Parquet file: {error}") from None
        return
    text = decode(path.read_bytes())
    if name.endswith(".csv"):
        yield from enumerate(csv.DictReader(io.StringIO(text)), start=1)
        return
    yield from parse_lines(name, text)


def decode(content: bytes) -> str:
    """Decode UTF-8 or UTF-16; other bytes become lone surrogates, which the entries refuse."""
    return content.decode(json.detect_encoding(content), "surrogateescape")


def parse_lines(name: str, text: str) -> Iterator[tuple[int, object]]:
    """Parse JSON Lines. Raises ValueError that names file and entry."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{name}: entry {number} is no JSON: {error}.") from None
