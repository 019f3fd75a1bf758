"""Conversation files of LLaVA, which GeoChat and EarthDial use too: a JSON list, or JSON Lines.

An entry has `image`, a path, and `conversations`, messages from "human" and "gpt". Labels may be in
a `labels.json` next to the file, as in ChatEarthNet's layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from earthvlm.data.labels import FACTS_FILE, LABELS_FILE, read_entries
from earthvlm.data.sources.entries import (
    CONVERSATION_COLUMNS,
    Entries,
    check_name,
    split_of_name,
)
from earthvlm.data.sources.files import SourceFiles
from earthvlm.data.sources.metadata_files import decode, parse_lines

# Where an image may lie, from the file's folder.
IMAGE_FOLDERS = ("", "images", "..", "../images")


def find_conversations(files: SourceFiles, names: Sequence[str]) -> list[str]:
    """Return the files among these whose first entry has a conversation."""
    found = []
    for name in names:
        if name.endswith((".json", ".jsonl")):
            try:
                _, first = next(_read_entries(files, name))
            except (ValueError, StopIteration):
                continue
            if isinstance(first, Mapping) and any(
                column in first for column in CONVERSATION_COLUMNS
            ):
                found.append(name)
    return found


def read_conversations(files: SourceFiles, names: Sequence[str]) -> Entries:
    """Read conversation files. Raises ValueError, naming file and entry, for another form."""
    entries = Entries()
    for name in names:
        folder = PurePosixPath(name).parent
        split = split_of_name(PurePosixPath(name).name) or "train"
        labels = _read_labels(files, folder)
        for number, entry in _read_entries(files, name):
            image = entry.get("image") if isinstance(entry, Mapping) else None
            if isinstance(image, list):
                if len(image) > 1:
                    entries.leave_out(name, "with several images", number)
                    continue
                image = image[0] if image else None
            if image is None:
                entries.add(name, number, entry, None, split)
                continue
            try:
                image = check_name(image)
            except ValueError as error:
                raise ValueError(f"{name}: entry {number} {error}.") from None
            known = labels.get(image) or labels.get(PurePosixPath(image).name)
            row = {"labels": known, **entry} if known else entry  # type: ignore[dict-item]
            entries.add(name, number, row, _locate(files, folder, image), split)
    return entries


def _locate(files: SourceFiles, folder: PurePosixPath, image: str) -> str:
    """Return an image's name in the source; that in the file's folder where there is none."""
    for place in IMAGE_FOLDERS:
        parts: list[str] = []
        for part in (folder / place / image).parts:
            if part == ".." and parts:
                parts.pop()
            elif part != "..":
                parts.append(part)
        if files.has("/".join(parts)):
            return "/".join(parts)
    return str(folder / image)


def _read_labels(files: SourceFiles, folder: PurePosixPath) -> Mapping[str, Any]:
    for file in (LABELS_FILE, FACTS_FILE):
        name = str(folder / file)
        if files.has(name):
            return read_entries(files.fetch(name))
    return {}


def _read_entries(files: SourceFiles, name: str) -> Iterator[tuple[int, object]]:
    text = decode(files.fetch(name).read_bytes())
    if name.endswith(".jsonl"):
        yield from parse_lines(name, text)
        return
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}.") from None
    if not isinstance(entries, list):
        raise ValueError(f"{name} holds no list of entries.")
    yield from enumerate(entries, start=1)
