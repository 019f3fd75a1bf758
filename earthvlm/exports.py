"""What can be taken home: a conversation as Markdown, found scenes as CSV and GeoJSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence

from earthvlm.measured import SOURCES, Measured, percent
from earthvlm.prompts import Message
from earthvlm.retrieval import SceneResult
from earthvlm.scene import Scene

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
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def conversation_to_markdown(
    scene: Scene, messages: Sequence[Message], measured: Measured | None, answered_by: str
) -> str:
    """A conversation with what was measured beside it, and who answered.

    Raises ValueError where nothing was said yet.
    """
    if not messages:
        raise ValueError("There is no conversation yet: ask something about the scene first.")
    lines = [f"# {_plain(scene.name)}", "", _plain(scene.summary()), ""]
    for message in messages:
        who = "You" if message["role"] == "user" else "Model"
        quoted = "\n".join(f"> {_plain(line)}" for line in message["content"].splitlines() or [""])
        lines += [f"**{who}**", "", quoted, ""]
    lines += ["## Measured, not said by the model", ""]
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
    """Text that Markdown shows as it is: what would begin a tag, link or emphasis is escaped."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", text)


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
