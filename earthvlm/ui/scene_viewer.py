"""The viewer of one scene: a component that zooms, shows maps over the picture, and reads pixels.

Leaflet draws it in the browser (viewer.js, which the page fetches when it shows a scene), from what
`show_viewer` returns. Texts of files and models reach the page as text, and the little HTML that is
sent is escaped here.
"""

from __future__ import annotations

import base64
import html
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from earthvlm.bridge.attention_maps import AnswerAttention
from earthvlm.scenes.bands import (
    BANDS,
    COMPOSITES,
    NDVI_BANDS,
    VISIBLE_BANDS,
    WAVELENGTHS,
    composite_bands,
)
from earthvlm.scenes.pictures.composites import BALANCED, STRETCHES
from earthvlm.scenes.scene import Scene
from earthvlm.serving.measurements import summarize_measurements
from earthvlm.serving.service import OpenScene
from earthvlm.ui.html.cover_map_html import CoverOverlay, show_overlay
from earthvlm.ui.html.data_uris import make_data_uri
from earthvlm.ui.html.scene_html import describe_composite
from earthvlm.ui.html.titles import make_title
from earthvlm.ui.page_parts import load_module, part_address
from earthvlm.ui.session import Session, identify_client, page_only

TEMPLATE = Path(__file__).with_name("viewer.html").read_text("utf-8")
FIRST_PICTURE = "FIRST"  # what the template has in its place
LOADER = load_module("viewer.js", "['select', 'apply', 'part', 'order']")
LIBRARY = (
    f'<link rel="stylesheet" href="{part_address("leaflet.css")}">'
    f'<script src="{part_address("leaflet.js")}"></script>'
)
MAX_PICTURE_SIDE = 2048  # longer scenes are shrunk for the page alone
SMALL_PICTURE_SIDE = 512  # up to here lossless, because visitors zoom in to single pixels
THUMBNAIL_SIDE = 200
# Of a part of an overview, in the file's pixels; larger ones would be overviews again.
PART_SIDES = (512, 1024, 2048)
MAX_MAP_SIDE = 32  # of an attention map, which the browser interpolates
# The side of a block of pixels whose reflectance is sent: 98 KB with twelve bands.
BLOCK_SIDE = 64
NO_VALUE = -32768  # of int16: a pixel without data
# Cells a side of the lattice by which the browser finds coordinates. In a whole Sentinel-2 tile
# they leave the curved grid by 15 m, in 20 km by half a metre.
LATTICE_CELLS = 4


def add_viewer(value: dict[str, Any] | None, label: str, elem_id: str) -> gr.HTML:
    """Add a viewer to the page; its value is what `show_session` returns, None for no scene.

    Its events are `select`, which asks for a block of pixels (see `wire_pixels`), `apply`, after
    bands or a stretch were chosen (see `get_chosen_bands`), `part`, after a part of an overview was
    (see `get_chosen_part`), and `order`, after an order of bands was (see `show_orders`).
    The first picture stands in the page itself until Leaflet draws it, a third of a second later.
    """
    return gr.HTML(
        value,
        html_template=TEMPLATE.replace(FIRST_PICTURE, _show_first(value) if value else ""),
        js_on_load=LOADER,
        head=LIBRARY,
        apply_default_css=False,
        label=label,
        elem_id=elem_id,
    )


def show_viewer(
    opened: OpenScene,
    composite: str | None,
    attention: AnswerAttention | None = None,
    covers: CoverOverlay | None = None,
    *,
    stretch: str = BALANCED,
) -> dict[str, Any]:
    """Return the value of a viewer: a scene drawn as a composite, and the maps that are given.

    composite: as `Scene.composite` takes it; None draws the only band.
    """
    scene = opened.scene
    picture = scene.composite(composite, stretch) if composite else scene.thumbnail(10**5)
    source, kind = encode_picture(picture)
    shown = composite_bands(composite) if composite else (scene.bands[0],)
    summary = summarize_measurements(opened.measurements)
    return {
        **describe_pixels(scene),
        "name": scene.name,
        "link": opened.entry.image_id if opened.entry else "",
        "picture": source,
        "kind": kind,
        "alt": f"{make_title(scene)}. {summary}. Drawn in {composite or 'grey'}",
        "caption": describe_composite(scene, composite),
        "shown": list(shown or NDVI_BANDS),
        "choice": _offer_bands(scene, shown, stretch) if composite else None,
        "metres": scene.pixel_metres,
        "covers": show_overlay(covers) if covers else None,
        "attention": _encode_attention(attention) if attention else None,
    }


def show_session(session: Session) -> dict[str, Any]:
    """Return the value of the viewer of a session's open scene. Raises ValueError for none."""
    opened = session.require_opened()
    value = show_viewer(
        opened, session.composite, session.attention, session.covers, stretch=session.stretch
    )
    if session.upload is not None:
        overview = opened.scene.overview_of
        shrink = overview[3] / opened.scene.width if overview else None
        value["parts"] = {"shrink": shrink, "sides": PART_SIDES}
    return value


def show_orders(name: str, choices: Mapping[str, Scene]) -> dict[str, Any]:
    """Return the value of a viewer that asks in which order a file's bands are.

    choices: the scene in each order. The event `order` has the index of the one that was chosen.
    """
    return {
        "orders": [
            {
                "name": order,
                "pictures": [
                    {
                        "source": encode_picture(_shrink(scene.composite(composite)))[0],
                        "alt": composite,
                    }
                    for composite in scene.available_composites()[:2]
                ],
            }
            for order, scene in choices.items()
        ],
        "orders_of": name,
    }


def get_chosen_part(event: gr.EventData, scene: Scene) -> tuple[int, int, int, int] | None:
    """Return the window that was chosen on an overview, in the file's pixels; None for all of it.

    Raises ValueError for an invalid event, and where the scene is no overview.
    """
    column, row, side = (getattr(event, name, math.nan) for name in ("column", "row", "side"))
    if side == 0:
        return None
    if side not in PART_SIDES or not (_is_number(column) and _is_number(row)):
        raise ValueError("the event has no part: column, row and one of the sides to choose from")
    if scene.overview_of is None:
        raise ValueError(
            "This scene is shown at full resolution already; parts are opened of overviews"
        )
    top, left, height, width = scene.overview_of
    wide, high = min(int(side), width), min(int(side), height)
    across = round(left + column * width / scene.width - wide / 2)
    down = round(top + row * height / scene.height - high / 2)
    across = min(max(across, left), left + width - wide)
    down = min(max(down, top), top + height - high)
    return across, down, wide, high


def get_chosen_bands(event: gr.EventData) -> tuple[str, str]:
    """Return the composite and the stretch that were chosen in a viewer.

    The composite has its name where it has one. Raises ValueError for an invalid event.
    """
    bands, stretch = (getattr(event, name, None) for name in ("bands", "stretch"))
    if not isinstance(bands, list) or not isinstance(stretch, str):
        raise ValueError("the event has no three bands and no stretch")
    chosen = composite_bands(" ".join(map(str, bands[:4])))
    named = (name for name, shown in COMPOSITES.items() if shown == chosen)
    return next(named, " ".join(chosen or ())), stretch


def wire_pixels(viewer: gr.HTML, session: gr.State) -> None:
    """Let a viewer read the reflectance of the pixels of a session's open scene."""

    @page_only
    def read_pixels(session: Session, event: gr.EventData, request: gr.Request) -> gr.HTML:
        identify_client(session, request)
        scene = session.require_opened().scene
        return gr.HTML(pixels=read_block(scene, getattr(event, "block", None)))

    viewer.select(
        read_pixels,
        session,
        viewer,
        api_visibility="private",
        concurrency_limit=None,
        show_progress="hidden",
    )


def describe_pixels(scene: Scene) -> dict[str, Any]:
    """Return what pixels.js needs to know of a scene: its size, bands, blocks and coordinates."""
    return {
        "key": make_key(scene),
        "width": scene.width,
        "height": scene.height,
        "bands": [
            {"name": band, "wavelength": WAVELENGTHS[band]}
            for band in sorted(scene.bands, key=WAVELENGTHS.__getitem__)
        ],
        "block": BLOCK_SIDE,
        **_find_coordinates(scene),
    }


def read_block(scene: Scene, number: object) -> dict[str, Any]:
    """Return the reflectance of a block of pixels, its bands by wavelength.

    number: of the block, row by row. Values are int16, reflectance x 10000, `[H, W, bands]` in
    base64, NO_VALUE where the scene has no data. Raises ValueError where there is no such block.
    """
    across, down = (-(-side // BLOCK_SIDE) for side in (scene.width, scene.height))
    if type(number) is not int or not 0 <= number < across * down:
        raise ValueError(f"the scene has blocks of pixels from 0 to {across * down - 1}")
    top, left = (BLOCK_SIDE * index for index in divmod(number, across))
    block = slice(top, top + BLOCK_SIDE), slice(left, left + BLOCK_SIDE)
    bands = sorted(scene.bands, key=WAVELENGTHS.__getitem__)
    found = scene.reflectance[block][:, :, [BANDS.index(band) for band in bands]]
    values = np.rint(found).clip(NO_VALUE + 1, -NO_VALUE - 1).astype("<i2")
    if scene.valid is not None:
        values[~scene.valid[block]] = NO_VALUE
    return {
        "key": make_key(scene),
        "block": number,
        "width": values.shape[1],
        "values": base64.b64encode(values.tobytes()).decode(),
    }


def make_key(scene: Scene) -> str:
    """Return a key that tells scenes apart, also those of one name."""
    sample = np.ascontiguousarray(scene.reflectance[::37, ::41])
    return f"{scene.name} {scene.width} {scene.height} {zlib.crc32(sample.tobytes()):08x}"


def encode_picture(picture: Image.Image) -> tuple[str, str]:
    """Return a picture as a data URI, and its format: "png" or "jpeg"."""
    if max(picture.size) > MAX_PICTURE_SIDE:
        picture = picture.copy()
        picture.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE), Image.Resampling.LANCZOS)
    if max(picture.size) <= SMALL_PICTURE_SIDE:
        return make_data_uri(picture, "png"), "png"
    # WebP is a tenth smaller and takes the server 20 times as long.
    return make_data_uri(picture, "jpeg", quality=90), "jpeg"


def _show_first(value: dict[str, Any]) -> str:
    """Return HTML of a viewer's picture, as a part of a template, whose marks $ and { it lacks."""
    alt = html.escape(value["alt"]).replace("$", "&#36;").replace("{", "&#123;")
    return f'<img class="first" src="{value["picture"]}" alt="{alt}">'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _shrink(picture: Image.Image) -> Image.Image:
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return picture


def show_picture(picture: Image.Image, alt: str) -> str:
    """Return HTML of a picture."""
    return (
        f'<img src="{encode_picture(picture)[0]}" alt="{html.escape(alt)}" '
        f'width="{picture.width}" height="{picture.height}">'
    )


def _offer_bands(scene: Scene, shown: tuple[str, ...] | None, stretch: str) -> dict[str, Any]:
    """Return the bands and stretches to choose from, and those that are chosen."""
    bands = sorted(scene.bands, key=WAVELENGTHS.__getitem__)
    return {
        "bands": [{"name": band, "label": f"{band} · {WAVELENGTHS[band]} nm"} for band in bands],
        "stretches": list(STRETCHES),
        "shown": list(shown or VISIBLE_BANDS),
        "stretch": stretch,
    }


def _find_coordinates(scene: Scene) -> dict[str, Any]:
    """Return longitude and latitude of a lattice of pixel corners, and where north is.

    north: degrees to the right of the picture's top. Both are None where the scene's place is not
    known pixel by pixel.
    """
    nothing = {"lattice": None, "north": None}
    if scene.grid is None:
        return nothing
    rows, columns = (
        np.linspace(0, side, LATTICE_CELLS + 1) for side in (scene.height, scene.width)
    )
    places = [[scene.grid.locate(row, column) for column in columns] for row in rows]
    if any(place is None for line in places for place in line):
        return nothing
    degrees = np.array(places, float)
    centre = LATTICE_CELLS // 2
    degrees[:, :, 0] += 360 * np.round((degrees[centre, centre, 0] - degrees[:, :, 0]) / 360)
    up = degrees[centre - 1, centre] - degrees[centre + 1, centre]
    up[0] *= np.cos(np.radians(degrees[centre, centre, 1]))
    return {
        "lattice": [
            [[round(value, 6) for value in place] for place in line] for line in degrees.tolist()
        ],
        "north": round(float(-np.degrees(np.arctan2(*up))), 1),
    }


def _encode_attention(attention: AnswerAttention) -> dict[str, Any]:
    """Return the maps, the whole answer's first: rows, columns, and uint8 in base64; and words."""
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
    words = [word.strip() for word in attention.words]
    return {"columns": size[0], "rows": size[1], "maps": encoded, "words": words}
