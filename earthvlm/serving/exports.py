"""What can be taken home: a conversation as Markdown, found scenes as CSV and GeoJSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from itertools import pairwise

from earthvlm.models.chat_templates import Message
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.spectral_indices import SOURCES, SpectralIndices, percent
from earthvlm.search.index import SceneResult

COLUMNS = (
    "rank",
    "image_id",
    "longitude",
    "latitude",
    "split",
    "caption",
    "caption_similarity",
    "scene_similarity",
    "source",
)
# What Markdown, GitHub's dialect included, may read as more than text: anywhere, and at the start
# of a line, where a list, a rule or an underlined heading begins.
_MARKUP = re.compile(r"[\\`*_\[\]<>#|&~$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LINE_START = re.compile(r"^(\d*)([-+=.)])")
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def conversation_to_markdown(
    scene: Scene, messages: Sequence[Message], measured: SpectralIndices | None, answered_by: str
) -> str:
    """A conversation with what was measured beside it, and who answered.

    Raises ValueError where nothing was said yet.
    """
    if not messages:
        raise ValueError("There is no conversation yet: ask something about the scene first.")
    lines = [f"# {_plain(scene.name)}", "", _plain(scene.summary()), ""]
    for message in messages:
        who = "You" if message["role"] == "user" else "Model"
        lines += [f"**{who}**", "", _quote(message["content"]), ""]
    lines += ["## SpectralIndices, not said by the model", ""]
    if measured is None:
        lines += ["Nothing: the scene lacks the near infrared.", ""]
    else:
        lines += ["| cover | share |", "|---|---|"]
        lines += [f"| {cover} | {percent(share)} |" for cover, share in measured.shares.items()]
        lines += ["", SOURCES, ""]
    lines += ["## Who answered", "", _plain(answered_by), ""]
    for note in scene.notes:
        lines.append(f"- {_plain(note)}")
    return "\n".join(lines).rstrip() + "\n"


def results_to_csv(results: Sequence[SceneResult]) -> str:
    """Found scenes as CSV with a header, best first. Raises ValueError where there are none."""
    _require(results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, result in enumerate(results, start=1):
        row = {"rank": rank} | {name: getattr(result, name) for name in COLUMNS[1:]}
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return text.getvalue()


def results_to_geojson(results: Sequence[SceneResult]) -> str:
    """Found scenes as a GeoJSON FeatureCollection (RFC 7946), best first.

    A scene whose place is unknown has a null geometry. Raises ValueError where there are none.
    """
    _require(results)
    features = [
        {
            "type": "Feature",
            "id": result.image_id,
            "geometry": None
            if result.longitude is None or result.latitude is None
            else {"type": "Point", "coordinates": [result.longitude, result.latitude]},
            "properties": {
                "rank": rank,
                **{name: getattr(result, name) for name in COLUMNS if hasattr(result, name)},
            },
        }
        for rank, result in enumerate(results, start=1)
    ]
    collection = {"type": "FeatureCollection", "features": features}
    return json.dumps(collection, ensure_ascii=False, indent=1) + "\n"


def _require(results: Sequence[SceneResult]) -> None:
    if not results:
        raise ValueError("There are no results to save: search for something first.")


def _plain(text: str) -> str:
    """One line of Markdown that shows text as it is: no tag, link, picture, emphasis or formula."""
    line = _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
    return _LINE_START.sub(r"\1\\\2", line)


def _quote(text: str) -> str:
    """Text as a block quote that keeps its lines."""
    lines = [_plain(line) for line in text.splitlines()] or [""]
    ends = ["\\" if line and after else "" for line, after in pairwise([*lines, ""])]
    return "\n".join(f"> {line}{end}".rstrip() for line, end in zip(lines, ends, strict=True))


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
