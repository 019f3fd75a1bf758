"""Facts and measurements of a scene, as the text that stands before the question in a prompt.

The form is fixed, so that a small language model learns to read it: a line on date, place, size
and bands, a line of spectral measurements, and two of the land-cover map. It is short, because
every word of it is processed before the first word of an answer.
"""

from __future__ import annotations

from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.formatting import describe_climate, describe_date, describe_place, season
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.spectral_indices import SpectralIndices

# Covers below this share of the scene are left out.
LEAST_SHARE = 0.005
# How many covers of the map are listed at most, the largest ones first.
MAX_COVERS = 5
# Parts of a cover are counted up to here, and small ones are not counted at all.
MAX_PARTS = 9
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
# A cover lies in the quarters that hold more than this part of what the fullest one holds.
QUARTER_SHARE = 0.5
_MEASURED_AS = {
    "cloud": "cloud",
    "snow": "snow",
    "water": "water",
    "dense vegetation": "dense plants",
    "sparse vegetation": "sparse plants",
    "bare or built": "bare or built",
}


def write_scene_context(
    scene: Scene, cover_map: CoverMap | None, measured: SpectralIndices | None
) -> str:
    """Write a scene's context: a line each on the file, the measurements and the map.

    Args:
        scene: gives date, place, size and bands.
        cover_map: the land-cover map, of any size; None leaves its lines out.
        measured: spectral measurements; None where the near infrared is missing.
    """
    lines = [_describe_file(scene), _describe_measurements(measured)]
    if cover_map is not None:
        lines += _describe_map(cover_map)
    return "\n".join(lines)


def _describe_file(scene: Scene) -> str:
    date = "Date unknown"
    if scene.date is not None:
        date = describe_date(scene.date)
        if (name := season(scene.date, scene.latitude)) is not None:
            date += f", {name}"
    place = describe_place(scene.longitude, scene.latitude, decimals=1) or "Place unknown"
    if scene.latitude is not None and scene.longitude is not None:
        place += f", {describe_climate(scene.latitude)}"
    size = "Size unknown"
    if scene.pixel_metres is not None:
        width, height = (
            _kilometres(side * scene.pixel_metres) for side in (scene.width, scene.height)
        )
        size = f"{width} x {height} km"
    bands = "Colour only" if scene.is_rgb_only else f"{len(scene.bands)} of {len(BANDS)} bands"
    return ". ".join([date, place, size, bands]) + "."


def _describe_measurements(measured: SpectralIndices | None) -> str:
    if measured is None:
        return "Nothing measured."
    shares = sorted(measured.shares.items(), key=lambda item: -item[1])
    listed = [
        f"{_percent(share)} {_MEASURED_AS[cover]}" for cover, share in shares if share > LEAST_SHARE
    ]
    return f"Measured: {', '.join(listed)}."


def _describe_map(cover_map: CoverMap) -> list[str]:
    shares = [(c, share) for c, share in cover_map.shares.items() if share > LEAST_SHARE]
    if not shares:
        return []
    covers = [
        f"{_percent(share)} {cover} {_describe_extent(cover_map, cover)}"
        for cover, share in shares[:MAX_COVERS]
    ]
    fields = {name: next(iter(field.shares)) for name, field in cover_map.fields.items()}
    if len(set(fields.values())) == 1:
        grid = f"all {shorten_cover(shares[0][0])}"
    else:
        grid = ", ".join(f"{name} {shorten_cover(cover)}" for name, cover in fields.items())
    return [f"Map: {'; '.join(covers)}.", f"Fields: {grid}."]


def _describe_extent(cover_map: CoverMap, cover: str) -> str:
    """The quarters in which a cover lies, and its largest parts: "top left, 2 long parts"."""
    quarters = [quarter.shares.get(cover, 0.0) for row in cover_map.split(2, 2) for quarter in row]
    names = [
        name
        for name, share in zip(QUARTERS, quarters, strict=True)
        if share > QUARTER_SHARE * max(quarters)
    ]
    where = "everywhere" if len(names) == len(QUARTERS) else ", ".join(names)
    parts = cover_map.parts(cover)
    if not parts:
        return where
    shape = "long" if parts[0].elongated else "compact"
    count = str(len(parts)) if len(parts) <= MAX_PARTS else "many"
    return f"{where}, {count} {shape} part{'' if len(parts) == 1 else 's'}"


def shorten_cover(cover: str) -> str:
    """The first word of a cover's name, unique among them: "tree", "built", "bare"."""
    return cover.split()[0].split("-")[0]


def _percent(share: float) -> str:
    return f"{max(1, round(100 * share))}%"


def _kilometres(metres: float) -> str:
    return f"{metres / 1000:.1f}".removesuffix(".0")
