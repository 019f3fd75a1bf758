"""HTML of the Compare tab: the two scenes, their descriptions, and what changed between them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from earthvlm.scenes.analysis.change_detection import (
    WATER_CHANGE_COLOURS,
    Change,
    Comparison,
    compare,
    draw_water_change,
    lie_apart,
)
from earthvlm.scenes.analysis.spectral_indices import percent
from earthvlm.scenes.places.formatting import describe_date
from earthvlm.serving.service import OpenScene
from earthvlm.ui.scene_viewer import show_no_scene, show_picture, show_viewer

NOT_MEASURED = "<p>The change cannot be measured, because a scene has no near-infrared band.</p>"


def show_empty(title: str) -> dict[str, Any]:
    """Return the value of a viewer in which a scene will be shown."""
    return show_no_scene("Upload a GeoTIFF of the same place", heading=title)


def show_in_pair(opened: OpenScene, heading: str, composite: str) -> dict[str, Any]:
    """Return the value of a viewer: a scene, drawn with the chosen bands if it has them."""
    available = opened.scene.available_composites()
    name = composite if composite in available else next(iter(available), None)
    return show_viewer(opened, name, heading=heading) | {"choice": None}


def show_description(text: str) -> str:
    """Return HTML of the model's description of a scene, marked as the model's."""
    return f'<p><span class="mark model">model</span> {html.escape(text)}</p>'


def make_headings(pair: Sequence[OpenScene]) -> list[str]:
    """Return HTML that tells two scenes apart: their dates if these differ, else their names."""
    scenes = [opened.scene for opened in pair]
    dates = [describe_date(scene.date) if scene.date else scene.name for scene in scenes]
    headings = dates if len(set(dates)) == len(dates) else [scene.name for scene in scenes]
    return [html.escape(heading) for heading in headings]


def show_changes(pair: Sequence[OpenScene]) -> str:
    """Return HTML of how land cover and water changed, with reasons to doubt the comparison."""
    before, after = pair
    comparison = compare(before.scene, after.scene)
    items = "".join(f"<li>{html.escape(doubt)}</li>" for doubt in comparison.doubts)
    notes = f'<ul class="notes">{items}</ul>' if items else ""
    if before.measurements is None or after.measurements is None:
        return notes + NOT_MEASURED
    if not comparison.changes:
        return notes
    same_place = not lie_apart(before.scene, after.scene)
    title = "What changed" if same_place else "How the places differ"
    table = _show_table(title, make_headings(pair), comparison)
    picture = _show_water_change(comparison, after)
    return f'<div class="changed"><div>{table}{notes}</div>{picture}</div>'


def _show_table(title: str, headings: Sequence[str], comparison: Comparison) -> str:
    rows = "".join(
        f'<tr><th scope="row">{change.cover.capitalize()}</th><td>{percent(change.before)}</td>'
        f"<td>{percent(change.after)}</td><td>{_format_points(change)}</td></tr>"
        for change in comparison.changes
    )
    columns = ("Land cover", *headings, "Difference (percentage points)")
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return (
        f'<h2>{title} <span class="mark">measured</span></h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p>{_explain(comparison)}</p>"
    )


def _show_water_change(comparison: Comparison, after: OpenScene) -> str:
    picture = draw_water_change(comparison, after.scene)
    if picture is None:
        return ""
    legend = "".join(
        f'<span><i style="background: rgb{colour}"></i>{name}</span>'
        for name, colour in WATER_CHANGE_COLOURS.items()
    )
    alt = "Where water was gained and lost, over the later scene in grey"
    image = show_picture(picture, alt)
    return f'<figure>{image}<figcaption class="key">{legend}</figcaption></figure>'


def _format_points(change: Change) -> str:
    """Return the difference with its error, and in grey where it is not larger than that."""
    difference = round(change.difference, 1)
    sign = "+" if difference > 0 else "−" if difference < 0 else ""
    text = f"{sign}{abs(difference):.1f} ± {100 * change.error:.1f}"
    return text if change.is_certain else f'<span class="unsure">{text}</span>'


def _explain(comparison: Comparison) -> str:
    text = "Differences in grey are no larger than their error: nothing may have changed."
    if comparison.compared is not None and comparison.compared < 0.995:
        seen = percent(comparison.compared)
        text = f"Compared were the {seen} of the ground that both scenes show. {text}"
    return text
