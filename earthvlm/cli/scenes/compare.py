"""`earthvlm compare`: measure what changed between two dates of one place."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from earthvlm.cli.options import (
    add_part_options,
    add_scene_options,
    check_output_path,
    open_scene,
)
from earthvlm.cli.output import print_message, write_json

if TYPE_CHECKING:
    from earthvlm.scenes.analysis.change_detection import Comparison
    from earthvlm.scenes.scene import Scene


def add_compare(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "compare",
        help="measure what changed between two dates of one place",
        description=(
            "Measure the land cover of two Sentinel-2 scenes of one place by spectral indices, in\n"
            "the pixels that both show, and print each share and its difference, the largest\n"
            "first. The scenes are put in the order of their dates. --output also writes where\n"
            "one cover was gained and lost as a cloud-optimized GeoTIFF. Sentences on why a\n"
            "comparison is doubtful go to stderr."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm compare 2020.tif 2022.tif\n"
            "  earthvlm compare 2020.tif 2022.tif --cover water --output change.tif\n"
            "  earthvlm compare a.SAFE.zip b.SAFE.zip --bbox 2.7 42.3 2.8 42.4 --json"
        ),
    )
    add = parser.add_argument
    add("paths", nargs=2, metavar="PATH", help="two scenes' files, products or addresses")
    add("-o", "--output", type=Path, metavar="FILE", help="write the change to this GeoTIFF")
    add("--cover", help="the land cover whose change is written (default: the most changed)")
    add("--json", action="store_true", help="print one JSON object; shares are from 0 to 1")
    add_scene_options(parser)
    add_part_options(parser)
    parser.set_defaults(run=run_compare)


def run_compare(arguments: argparse.Namespace) -> int:
    """Print the changes, and write the map. Raises ValueError where none can be measured."""
    output: Path | None = arguments.output
    if output is not None:
        check_output_path(output, "--output", inputs=arguments.paths)
    elif arguments.cover is not None:
        raise ValueError("--cover names what --output writes: give a file, too.")
    from earthvlm.scenes.analysis.change_detection import compare, in_order_of_date, lie_apart

    opened = {open_scene(path, arguments): path for path in arguments.paths}
    scenes = in_order_of_date(list(opened))
    for scene in scenes:
        for note in scene.notes:
            print_message(f"{opened[scene]}: {note}")
    comparison = compare(*scenes)
    if lie_apart(*scenes):
        raise ValueError(comparison.doubts[0])  # which names the places
    if not comparison.changes:
        raise ValueError(" ".join(comparison.doubts))
    for sentence in (*comparison.doubts, comparison.left_out):
        if sentence:
            print_message(sentence)
    if output is not None:
        _write_map(output, comparison, arguments.cover, scenes[1])
    print(
        write_json(_as_dict(comparison, scenes, [opened[scene] for scene in scenes]))
        if arguments.json
        else _as_table(comparison, scenes)
    )
    return 0


def _write_map(output: Path, comparison: Comparison, cover: str | None, scene: Scene) -> None:
    """Write the change of a cover, by default of the most changed one, on a scene's grid."""
    from earthvlm.scenes.analysis.map_geotiff import write_change_map

    drawable = comparison.drawable
    if not drawable:
        raise ValueError(f"No map was written: {' '.join(comparison.doubts)}")
    if cover is not None and cover not in drawable:
        raise ValueError(f"--cover {cover} is in neither scene; those are {', '.join(drawable)}.")
    chosen = cover or drawable[0]
    write_change_map(output, comparison, chosen, scene)
    print_message(f"{output} shows where {chosen} was gained and lost.")
    if scene.grid is None:
        print_message(f"{scene.name} has no grid on Earth, so {output} has none either.")


def _as_table(comparison: Comparison, scenes: Sequence[Scene]) -> str:
    """A line a cover, the largest change first."""
    from earthvlm.scenes.analysis.change_detection import name_by_date
    from earthvlm.scenes.analysis.spectral_indices import percent

    dates = name_by_date(scenes, datetime.date.isoformat)
    rows = [("land cover", *dates, "difference in percentage points")]
    for change in comparison.changes:
        unsure = "" if change.is_certain else "  (within its error)"
        shares = (percent(share).replace("\u00a0", " ") for share in (change.before, change.after))
        points = change.points.replace("\u2212", "-")  # which Windows' code pages lack
        rows.append((change.cover, *shares, points + unsure))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{cover:<{widths[0]}}  {before:>{widths[1]}}  {after:>{widths[2]}}  {difference}"
        for cover, before, after, difference in rows
    )


def _as_dict(
    comparison: Comparison, scenes: Sequence[Scene], paths: Sequence[str]
) -> dict[str, object]:
    before, after = (
        {"path": path, "date": scene.date.isoformat() if scene.date else None}
        for path, scene in zip(paths, scenes, strict=True)
    )
    return {
        "before": before,
        "after": after,
        "compared": None if comparison.compared is None else round(comparison.compared, 4),
        "changes": [
            {
                "cover": change.cover,
                "before": round(change.before, 4),
                "after": round(change.after, 4),
                "difference": round(change.after - change.before, 4),
                "error": round(change.error, 4),
                "certain": change.is_certain,
            }
            for change in comparison.changes
        ],
        "doubts": list(comparison.doubts),
    }
