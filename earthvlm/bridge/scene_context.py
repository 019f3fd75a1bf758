"""Facts and measurements of a scene, as the text that stands before the question in a prompt.

The form is fixed, so that a small language model learns to read it: a line on date, place, size
and bands, a line of spectral measurements, and two of the land-cover map. It is short, because
every word of it is processed before the first word of an answer.
"""

from __future__ import annotations

from earthvlm.data.labels import QUARTERS, SceneLabels
from earthvlm.data.questions.scene_sentences import (
    HIDDEN,
    count_parts,
    find_largest_area,
    find_long_part,
    find_quarters,
    find_surroundings,
    mentioned_covers,
)
from earthvlm.scenes.analysis.spectral_indices import MEASURED_AS, SpectralIndices
from earthvlm.scenes.land_cover import FIELDS, CoverMap, rounded_percent
from earthvlm.scenes.places.formatting import (
    describe_area,
    describe_climate,
    describe_date,
    describe_place,
    describe_size,
    season,
)
from earthvlm.scenes.scene import Scene

# Covers below this share of the scene are left out.
LEAST_SHARE = 0.005
# The parts of these covers are counted; the others lie everywhere and in pieces.
COUNTED = ("water", "built-up land", "snow or ice", "burnt land")
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
    lines = [_describe_file(scene), _describe_measurements(measured, cover_map is not None)]
    if cover_map is not None:
        lines += _describe_map(cover_map, scene)
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
    size = describe_size(scene.width, scene.height, scene.pixel_metres) or "Size unknown"
    bands = "Colour only" if scene.is_rgb_only else f"{len(scene.bands)} bands"
    return ". ".join([date, place, size, bands]) + "."


def _describe_measurements(measured: SpectralIndices | None, beside_map: bool) -> str:
    if measured is None:
        return "Nothing measured."
    shares = sorted(measured.shares.items(), key=lambda item: -item[1])
    if beside_map:  # which shows the others as well
        shares = [(cover, share) for cover, share in shares if cover in MEASURED_AS.values()]
    listed = [
        f"{_percent(share)} {_MEASURED_AS[cover]}" for cover, share in shares if share > LEAST_SHARE
    ]
    haze = " Haze." if measured.is_hazy else ""
    return f"Measured: {', '.join(listed) or 'nothing'}.{haze}"


def _describe_map(cover_map: CoverMap, scene: Scene) -> list[str]:
    labels = SceneLabels.from_cover_map(cover_map)
    covers = [
        f"{_round(share)} {shorten_cover(cover)} {_describe_extent(labels, cover, scene)}"
        for cover, share in labels.shares.items()
        if labels.shows(cover) and labels.cloud_share <= HIDDEN
    ]
    if labels.shows("cloud"):
        covers.append(f"{_round(labels.cloud_share)} cloud {_name_quarters(labels, 'cloud')}")
    lines = [f"Map: {'; '.join(covers)}."]
    parts = {name: _list_covers(labels.quarter(name)) for name in QUARTERS}
    lines.append(f"Quarters: {'; '.join(f'{name} {part}' for name, part in parts.items())}.")
    if labels.has_fields:
        fields = {name: _main_cover(labels.field(name)) for name in FIELDS}
        grid = ", ".join(f"{name} {cover}" for name, cover in fields.items())
        alike = len(set(fields.values())) == 1
        lines.append(f"Ninths: {f'all {fields[FIELDS[0]]}' if alike else grid}.")
    return lines


def _list_covers(labels: SceneLabels) -> str:
    """The covers of a quarter that a description mentions: "80% tree, water"."""
    if labels.cloud_share > HIDDEN:
        return "cloud"
    names = [shorten_cover(cover) for cover in mentioned_covers(labels)]
    return f"{_round(labels.shares[labels.dominant])} {', '.join(names)}"


def _main_cover(labels: SceneLabels) -> str:
    return "cloud" if labels.cloud_share > HIDDEN else shorten_cover(labels.dominant)


def _name_quarters(labels: SceneLabels, cover: str) -> str:
    names = find_quarters(labels, cover)
    return "everywhere" if len(names) == len(QUARTERS) else ", ".join(names)


def _describe_extent(labels: SceneLabels, cover: str, scene: Scene) -> str:
    """Where a cover lies, its parts, what is around, the largest: "left, 2 long by tree, 3 ha"."""
    where = _name_quarters(labels, cover)
    if labels.cover_map is None or cover not in COUNTED:
        return where
    parts = labels.cover_map.notable_parts(cover)
    if not parts:
        return f"{where}, small patches"
    river = find_long_part(labels.cover_map, cover)
    long = river and f"long {' to '.join(river.ends)}"
    shape = (long if parts[0].elongated else long and f"compact, one {long}") or "compact"
    names = [shorten_cover(name) for name in find_surroundings(labels.cover_map, cover)]
    near = f" by {' and '.join(names)}" if names else ""
    area = find_largest_area(labels.cover_map, cover, scene)
    size = "" if area is None else f", {describe_area(area)}"
    return f"{where}, {count_parts(labels.cover_map, cover) or 'many'} {shape}{near}{size}"


def shorten_cover(cover: str) -> str:
    """The first word of a cover's name, unique among them: "tree", "built", "bare"."""
    return cover.split()[0].split("-")[0]


def _percent(share: float) -> str:
    return f"{max(1, round(100 * share))}%"


def _round(share: float) -> str:
    return f"{rounded_percent(share) or '<1'}%"
