"""A scene as HTML: a picture to zoom into, an attention map over it, and its details.

Everything that comes from a file, a caption or a model is escaped here.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from earthvlm.bridge.attention_maps import AnswerAttention
from earthvlm.scenes.analysis.spectral_indices import COVER_RULES, SOURCES, percent
from earthvlm.scenes.bands import COMPOSITES, WAVELENGTHS
from earthvlm.scenes.formatting import describe_date, describe_place
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.pictures.composites import NDVI_COLOURS, NDVI_STOPS
from earthvlm.scenes.scene import Scene
from earthvlm.serving.agreement import find_disagreements
from earthvlm.serving.measurements import select_measurements
from earthvlm.serving.service import OpenScene
from earthvlm.ui.cover_map_html import show_legend, show_overlay

# Runs once for each viewer: zooms, moves and draws the attention map.
VIEWER_SCRIPT = Path(__file__).with_name("viewer.js").read_text("utf-8")
MAX_PICTURE_SIDE = 1536  # larger scenes are shrunk for the page alone
SMALL_PICTURE_SIDE = 512  # up to here lossless, because visitors zoom in to single pixels
MAX_MAP_SIDE = 32  # of an attention map, which the browser interpolates
UNKNOWN = "not in the file"
# They are visible on dark and on light pages; each is shown with its name.
COVER_COLOURS = {
    "cloud": "#b9bfc9",
    "snow": "#7fd0e8",
    "water": "#3b74d9",
    "dense vegetation": "#2f8f3a",
    "sparse vegetation": "#a9bf4f",
    "bare or built": "#b0794a",
}
_NAME = re.compile(r"([a-z]{2,}(?:_[a-z]{2,})*)")


def make_title(name: str) -> str:
    """Make a title of an image_id: "Finland" of "finland_2017-09-24_69_24"."""
    match = _NAME.match(name.lower())
    return match.group(1).replace("_", " ").capitalize() if match else name


def show_viewer(
    opened: OpenScene,
    composite: str | None,
    attention: AnswerAttention | None = None,
    cover_map: CoverMap | None = None,
) -> str:
    """Return HTML of a scene's picture with zoom tools, and with the maps that are given."""
    scene = opened.scene
    picture = scene.composite(composite) if composite else scene.thumbnail(MAX_PICTURE_SIDE)
    source, kind = _encode(picture)
    alt = html.escape(f"{scene.name}, {composite or 'grey'}")
    link = html.escape(opened.entry.image_id) if opened.entry else ""
    maps = f" data-maps='{_encode_maps(attention)}'" if attention else ""
    ratio = f"{scene.width} / {scene.height}"
    return (
        f'<figure class="viewer" data-scene="{link}" data-name="{html.escape(scene.name)}"{maps}>'
        f'<div class="viewport" tabindex="0" role="group" style="aspect-ratio: {ratio}" '
        'aria-label="The scene: plus and minus zoom, arrow keys move, 0 shows all of it">'
        f'<div class="sheet"><img src="{source}" alt="{alt}" width="{picture.width}" '
        f'height="{picture.height}" draggable="false">'
        f"{show_overlay(cover_map) if cover_map else ''}"
        '<canvas aria-hidden="true"></canvas></div></div>'
        '<div class="tools" role="toolbar" aria-label="Picture">'
        f"{_tool('zoom-in', 'Zoom in', '+')}{_tool('zoom-out', 'Zoom out', '−')}"
        f"{_tool('whole', 'Show the whole scene', '⤢')}"
        # The script sets its address to the picture's, which is not repeated here.
        f'<a class="tool" download="{html.escape(scene.name)}.{kind}" '
        'aria-label="Download the picture" title="Download the picture">↓</a>'
        + (_tool("link", "Copy a link to this scene and question", "Link") if link else "")
        + "</div>"
        f"<figcaption>{describe_composite(scene, composite)}</figcaption>"
        f"{show_legend(cover_map) if cover_map else ''}"
        f"{_show_words(attention) if attention else ''}</figure>"
    )


def show_picture(picture: Image.Image, alt: str) -> str:
    """Return HTML of a picture."""
    return (
        f'<img src="{_encode(picture)[0]}" alt="{html.escape(alt)}" width="{picture.width}" '
        f'height="{picture.height}">'
    )


def describe_composite(scene: Scene, composite: str | None) -> str:
    """Return HTML that names the bands shown as red, green and blue, or the legend of NDVI."""
    if composite == "NDVI":
        low, high = NDVI_STOPS[0], NDVI_STOPS[-1]
        stops = ", ".join(
            f"rgb{colour} {100 * (stop - low) / (high - low):.0f}%"
            for stop, colour in zip(NDVI_STOPS, NDVI_COLOURS, strict=True)
        )
        return (
            '<span class="legend" role="img" aria-label="NDVI from -0.2, water, over 0.1, bare, to '
            f'0.9, dense plants"><span>−0.2 water</span><i style="background: '
            f'linear-gradient(90deg, {stops})"></i><span>0.9 dense plants</span></span>'
        )
    bands = COMPOSITES.get(composite or "")
    if bands is None:
        return f"{html.escape(scene.bands[0])} in grey"
    return "Red, green, blue show " + ", ".join(f"{b} ({WAVELENGTHS[b]} nm)" for b in bands)


def show_details(opened: OpenScene) -> str:
    """Return HTML of the details panel: measurements of the file, marked as measured."""
    scene = opened.scene
    details = {
        "Date": describe_date(scene.date) if scene.date else UNKNOWN,
        "Place": describe_place(scene.longitude, scene.latitude) or UNKNOWN,
        "Size": f"{scene.width} × {scene.height} pixels",
        "Bands": f"{len(scene.bands)} of 12",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in details.items())
    text = (
        f'<h2>{html.escape(make_title(scene.name))} <span class="mark">measured</span></h2>'
        f'<p class="file"><strong>{html.escape(scene.name)}</strong></p><dl>{rows}</dl>'
    )
    text += _show_shares(opened)
    warnings = [*opened.warnings, *scene.notes]
    if warnings:
        items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
        text += f'<ul class="notes" aria-label="Notes about this scene">{items}</ul>'
    if len(scene.bands) < 12:
        listed = ", ".join(sorted(scene.bands))
        text += f"<details><summary>Bands in it</summary>{html.escape(listed)}</details>"
    if opened.entry is not None and opened.entry.source:
        source = html.escape(opened.entry.source)
        text += f"<details><summary>Source and licence</summary>{source}</details>"
    return text


def _show_shares(opened: OpenScene) -> str:
    measured = opened.measurements
    if measured is None:
        return "<p>Land cover cannot be measured: the file has no near-infrared band.</p>"
    bar = "".join(
        f'<i style="flex-grow: {share:.4f}; background: {COVER_COLOURS[cover]}"></i>'
        for cover, share in measured.shares.items()
        if share > 0
    )
    rows = "".join(
        f'<tr title="{html.escape(COVER_RULES[cover])}"><th scope="row"><i style="background: '
        f'{COVER_COLOURS[cover]}"></i>{cover.capitalize()}</th><td>{percent(share)}</td></tr>'
        for cover, share in measured.shares.items()
    )
    return (
        f'<div class="bar" aria-hidden="true">{bar}</div><table aria-label="Measured shares of '
        f'the scene">{rows}</table><details><summary>How this was measured</summary>'
        f"{html.escape(SOURCES)}</details>"
    )


def show_related_shares(
    opened: OpenScene, question: str, answer: str, cover_map: CoverMap | None = None
) -> str:
    """Return HTML of the measured shares of the land covers that are mentioned, or "".

    Where the answer departs from them, or from the land-cover map, a sentence says so.
    """
    measured = select_measurements(f"{question} {answer}", opened.measurements)
    differing = find_disagreements(question, answer, opened.measurements, cover_map)
    shares = " · ".join(f"{name} <b>{percent(share)}</b>" for name, share in measured)
    shown = f'<p><span class="mark">measured</span> {shares}</p>' if shares else ""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in differing)
    warning = f'<ul class="notes" aria-label="Where they differ">{items}</ul>' if items else ""
    return shown + warning


def _tool(action: str, label: str, sign: str) -> str:
    return (
        f'<button type="button" class="tool" data-do="{action}" aria-label="{label}" '
        f'title="{label}">{sign}</button>'
    )


def _show_words(attention: AnswerAttention) -> str:
    words = "".join(
        f'<button type="button" class="word" data-word="{number}" aria-pressed="false">'
        f"{html.escape(word.strip())}</button> "
        for number, word in enumerate(attention.words)
    )
    return (
        '<div class="words" role="group" aria-label="Words of the answer: choose one to see its '
        'attention map">'
        '<button type="button" class="word whole" data-word="-1" aria-pressed="true">'
        f"Whole answer</button> {words}"
        '<button type="button" class="word none" data-word="-2" aria-pressed="false">Hide</button>'
        "<p>Bright areas got more of the model's attention than usual; for one word, more than for "
        "the whole answer. The map shows which areas had weight, not why.</p></div>"
    )


def _encode_maps(attention: AnswerAttention) -> str:
    """Return the maps as JSON, the whole answer's first: rows, columns, and uint8 in base64."""
    maps = [
        attention.relative_attention(),
        *(attention.relative_attention(w) for w in range(len(attention.words))),
    ]
    encoded, size = [], (0, 0)
    for values in maps:
        picture = Image.fromarray((values * 255).astype(np.uint8))
        picture.thumbnail((MAX_MAP_SIDE, MAX_MAP_SIDE), Image.Resampling.BOX)
        size = picture.size
        encoded.append(base64.b64encode(picture.tobytes()).decode())
    return json.dumps({"columns": size[0], "rows": size[1], "maps": encoded})


def _encode(picture: Image.Image) -> tuple[str, str]:
    """Return a picture as a data URI, and its format: "png" or "webp"."""
    if max(picture.size) > MAX_PICTURE_SIDE:
        picture = picture.copy()
        picture.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE), Image.Resampling.LANCZOS)
    small = max(picture.size) <= SMALL_PICTURE_SIDE
    options = {"format": "PNG"} if small else {"format": "WEBP", "quality": 88}
    data = io.BytesIO()
    picture.save(data, **options)
    kind = str(options["format"]).lower()
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}", kind
