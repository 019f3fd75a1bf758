"""A scene as HTML: its details, what was measured of it, and which bands a picture shows.

Everything that comes from a file, a caption or a model is escaped here.
"""

from __future__ import annotations

import html

from earthvlm.metrics.agreement import find_disagreements
from earthvlm.scenes.analysis.spectral_indices import COVER_RULES, SOURCES, percent
from earthvlm.scenes.bands import WAVELENGTHS, composite_bands
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.pictures.composites import NDVI_COLOURS, NDVI_STOPS
from earthvlm.scenes.places.formatting import describe_date, describe_place
from earthvlm.scenes.scene import Scene
from earthvlm.serving.measurements import select_measurements
from earthvlm.serving.service import OpenScene
from earthvlm.ui.html.titles import make_title

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
    bands = composite_bands(composite) if composite else None
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
    text = f"{name_scene(scene)}<dl>{rows}</dl>{_show_shares(opened)}"
    warnings = [*opened.warnings, *scene.notes]
    if warnings:
        items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
        text += f'<ul class="notes" aria-label="Notes about this scene">{items}</ul>'
    if len(scene.bands) < 12:
        listed = ", ".join(sorted(scene.bands))
        text += f"<details><summary>Bands in the file</summary>{html.escape(listed)}</details>"
    if opened.source:
        source = html.escape(opened.source)
        text += f"<details><summary>Source and licence</summary>{source}</details>"
    return text


def name_scene(scene: Scene) -> str:
    """Return HTML of a scene's title and the name of its file."""
    return (
        f"<h2>{html.escape(make_title(scene))}</h2>"
        f'<p class="file"><strong>{html.escape(scene.name)}</strong></p>'
    )


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
        '<h3>Land cover <span class="mark">measured</span></h3>'
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
