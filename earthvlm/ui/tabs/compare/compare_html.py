"""HTML of the Compare tab: the two scenes, their descriptions, and what changed between them."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from PIL import Image

from earthvlm.scenes.analysis.change_detection import (
    CHANGE_COLOURS,
    Change,
    Comparison,
    compare,
    draw_change,
    lie_apart,
    name_by_date,
)
from earthvlm.scenes.analysis.spectral_indices import percent
from earthvlm.scenes.bands import NDVI_BANDS, composite_bands
from earthvlm.scenes.places.formatting import describe_date
from earthvlm.scenes.places.gazetteer import describe_nearest
from earthvlm.scenes.scene import Scene
from earthvlm.serving.service import OpenScene
from earthvlm.ui.html.data_uris import make_data_uri
from earthvlm.ui.scene_viewer import describe_pixels, show_picture

EMPTY = (
    '<div class="viewport empty">Upload two scenes of one place, or one to compare with the scene '
    "in Chat.</div>"
)
POINT = "Point at a pixel, or touch one, for its place and its reflectance in both scenes."
MAX_MAP_SIDE = 1024  # larger maps of change are shrunk for the page alone


def show_pair(pair: Sequence[OpenScene], composite: str) -> str:
    """Return HTML of two scenes that are zoomed together, with a divider if they overlie."""
    headings = make_headings(pair)
    first, second = scenes = [opened.scene for opened in pair]
    overlie = first.reflectance.shape[:2] == second.reflectance.shape[:2]
    mode = "swipe" if overlie and not lie_apart(first, second) else "side"
    ports = "".join(
        f'<div class="port"><span class="port-name">{heading}</span>'
        f"{_draw(opened, composite, heading)}</div>"
        for opened, heading in zip(pair, headings, strict=True)
    )
    modes = divider = ""
    if mode == "swipe":
        modes = "".join(
            f'<button type="button" data-mode="{name}" aria-pressed="{str(name == mode).lower()}">'
            f"{label}</button>"
            for name, label in (("swipe", "Divider"), ("side", "Side by side"))
        )
        divider = (
            '<input type="range" class="divider" min="0" max="100" value="50" aria-label="Divider: '
            f'{headings[0]} on the left of it, {headings[1]} on the right">'
        )
    tools = "".join(
        f'<button type="button" data-zoom="{action}" aria-label="{label}" title="{label}">{sign}'
        "</button>"
        for action, label, sign in (
            ("in", "Zoom in", "+"),
            ("out", "Zoom out", "−"),
            ("whole", "Show all of both", "⤢"),
        )
    )
    pixels = [
        {
            **describe_pixels(scene),
            "name": html.unescape(heading),
            "shown": _bands(scene, composite),
        }
        for scene, heading in zip(scenes, headings, strict=True)
    ]
    described = html.escape(json.dumps(pixels))
    return (
        f'<figure class="pair-view" data-mode="{mode}" data-scenes="{described}" '
        f'style="--proportions: {first.width / first.height:.4f}">'
        f'<div class="pair-tools" role="toolbar" aria-label="Both scenes">{modes}{tools}</div>'
        '<div class="ports" tabindex="0" role="group" aria-label="Both scenes: plus and minus '
        f'zoom, arrow keys move, 0 shows all">{ports}</div>{divider}'
        f'<p class="values">{POINT}</p></figure>'
    )


def _choose_composite(scene: Scene, composite: str) -> str | None:
    """Return a composite that the scene's bands allow, this one if they do; None for one band."""
    available = scene.available_composites()
    return composite if composite in available else next(iter(available), None)


def _bands(scene: Scene, composite: str) -> list[str]:
    """Return the bands that a scene is drawn with."""
    name = _choose_composite(scene, composite)
    return list((composite_bands(name) or NDVI_BANDS) if name else scene.bands[:1])


def _draw(opened: OpenScene, composite: str, heading: str) -> str:
    name = _choose_composite(opened.scene, composite)
    picture = opened.scene.composite(name) if name else opened.scene.thumbnail()
    return show_picture(picture, html.unescape(f"{heading}, {name or 'grey'}"))


def show_description(text: str, heading: str = "") -> str:
    """Return HTML of the model's description of a scene, marked as the model's.

    heading: HTML that names the scene.
    """
    title = f"<h3>{heading}</h3>" if heading else ""
    return f'{title}<p><span class="mark model">model</span> {html.escape(text)}</p>'


def make_headings(pair: Sequence[OpenScene]) -> list[str]:
    """Return HTML that tells two scenes apart: by dates, by places, else by names."""
    scenes = [opened.scene for opened in pair]
    places = [describe_nearest(scene.longitude, scene.latitude) for scene in scenes]
    if lie_apart(*scenes) and len(set(places)) == len(places):
        headings = [place[:1].upper() + place[1:] for place in places]
    else:
        headings = name_by_date(scenes, describe_date)
    return [html.escape(heading) for heading in headings]


def show_changes(pair: Sequence[OpenScene]) -> str:
    """Return HTML of how land cover changed and where, with reasons to doubt the comparison."""
    before, after = pair
    comparison = compare(before.scene, after.scene)
    apart = lie_apart(before.scene, after.scene)
    doubts = comparison.doubts[:1] if apart else comparison.doubts  # the first names the places
    items = "".join(f"<li>{html.escape(doubt)}</li>" for doubt in doubts)
    notes = f'<ul class="notes">{items}</ul>' if items else ""
    if apart:
        return f"<h2>These scenes cannot be compared over time</h2>{notes}"
    if not comparison.changes:
        return notes
    table = _show_table(make_headings(pair), comparison)
    return f'<div class="changed"><div>{notes}{table}</div>{_show_maps(comparison, after)}</div>'


def _show_table(headings: Sequence[str], comparison: Comparison) -> str:
    rows = "".join(
        f'<tr><th scope="row">{change.cover.capitalize()}</th><td>{percent(change.before)}</td>'
        f"<td>{percent(change.after)}</td><td>{_format_points(change)}</td></tr>"
        for change in comparison.changes
    )
    columns = ("Land cover", *headings, "Difference (percentage points)")
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return (
        '<h2>What changed <span class="mark">measured</span></h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p>{_explain(comparison)}</p>"
    )


def _show_maps(comparison: Comparison, after: OpenScene) -> str:
    """Return HTML of a map of the change of each cover over the later scene in grey."""
    covers = comparison.drawable
    if not covers:
        return ""
    grey = after.scene.composite().convert("L").point(lambda value: 90 + value * 0.6)
    base = show_picture(grey, "The later scene in grey")
    buttons, maps = "", ""
    for number, cover in enumerate(covers):
        chosen = number == 0
        buttons += (
            f'<button type="button" data-cover="{cover}" aria-pressed="{str(chosen).lower()}">'
            f"{cover.capitalize()}</button>"
        )
        source = _encode_map(draw_change(comparison, cover))
        maps += (
            f'<img src="{source}" data-cover="{cover}" alt="Where {cover} was gained and lost" '
            f'draggable="false"{"" if chosen else " hidden"}>'
        )
    key = "".join(
        f'<span><i style="background: rgb{colour}"></i>{name}</span>'
        for name, colour in CHANGE_COLOURS.items()
    )
    return (
        '<figure><h2>Where it changed <span class="mark">measured</span></h2>'
        f'<div class="change-covers" role="group" aria-label="Land cover">{buttons}</div>'
        f'<div class="change-map">{base}{maps}</div><figcaption class="key">{key}</figcaption>'
        "</figure>"
    )


def _encode_map(picture: Image.Image) -> str:
    """Return a map with its palette and transparency as a data URI."""
    transparency = picture.info["transparency"]
    if max(picture.size) > MAX_MAP_SIDE:
        picture.thumbnail((MAX_MAP_SIDE, MAX_MAP_SIDE), Image.Resampling.NEAREST)
    return make_data_uri(picture, "png", transparency=transparency)


def _format_points(change: Change) -> str:
    """Return the difference with its error, and in grey where it is not larger than that."""
    text = change.points
    return text if change.is_certain else f'<span class="unsure">{text}</span>'


def _explain(comparison: Comparison) -> str:
    text = "A difference in grey is no larger than its error: perhaps nothing changed."
    return f"{comparison.left_out} {text}".lstrip()
