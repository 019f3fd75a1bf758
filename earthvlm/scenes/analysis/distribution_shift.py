"""Warnings about scenes that differ from a bridge's training tiles: cloud, bands, light, place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from earthvlm.scenes.analysis.spectral_indices import SpectralIndices, percent
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.pictures.image_reader import RGB_NOTE
from earthvlm.scenes.places.formatting import describe_bbox
from earthvlm.scenes.scene import Scene

MIN_CLOUD_SHARE, MIN_DARK_SHARE = 0.05, 0.1
MOSTLY_HIDDEN = 0.5
# A scene this many times as wide as a training tile is described from afar.
MUCH_LARGER = 4


@dataclass(frozen=True)
class TrainingStatistics:
    """Statistics of the tiles that a bridge was trained on, part of its configuration.

    mean_reflectance: by band, the 0.5th and 99.5th percentile of the tiles' means, x 10000.
    side: the tiles' width and height in pixels.
    bbox: west, south, east and north of the tiles in degrees, or None where their places are not
        known.
    region: a name for that area, for people; may be empty.
    """

    mean_reflectance: dict[str, tuple[float, float]]
    side: int
    bbox: tuple[float, float, float, float] | None = None
    region: str = ""

    @classmethod
    def from_entry(cls, entry: dict[str, Any]) -> TrainingStatistics:
        """Read the statistics from a configuration's JSON. Raises TypeError for another form."""
        means = {band: tuple(bounds) for band, bounds in entry["mean_reflectance"].items()}
        bbox = entry["bbox"] and tuple(entry["bbox"])
        return cls(**entry | {"mean_reflectance": means, "bbox": bbox})


def warn_out_of_distribution(
    scene: Scene,
    measurements: SpectralIndices | None,
    training_tiles: TrainingStatistics | None = None,
) -> list[str]:
    """Return sentences on why answers about a scene deserve less trust.

    What hides the ground and missing infrared bands are always reported; light, size and place only
    where statistics of the training tiles are known.
    """
    warnings = [] if measurements is None else _warn_of_cloud_and_haze(measurements)
    warnings += _warn_of_missing_bands(scene, training_tiles)
    if training_tiles is None:
        return warnings
    outside = _find_unusual_bands(scene, training_tiles)
    if outside:
        warnings.append(
            f"The scene is {' and '.join(sorted(set(outside.values())))} than nearly all tiles the "
            f"model learned from ({', '.join(outside)}), so expect mistakes."
        )
    if max(scene.width, scene.height) >= MUCH_LARGER * training_tiles.side:
        warnings.append(
            "The scene is far larger than the tiles the model learned from "
            f"({training_tiles.side} × {training_tiles.side} pixels), so small things in it are "
            "easily missed."
        )
    if training_tiles.bbox is not None and _lies_outside(scene, training_tiles.bbox):
        area = training_tiles.region or f"the area {describe_bbox(training_tiles.bbox)}"
        warnings.append(f"The scene lies outside {area}, where all training tiles were from.")
    return warnings


def _warn_of_cloud_and_haze(measurements: SpectralIndices) -> list[str]:
    warnings = []
    cloud = measurements.share("cloud")
    if cloud >= MOSTLY_HIDDEN:
        warnings.append(
            f"Cloud covers {percent(cloud)} of the scene, so most of the ground is hidden: what "
            "the model says of land cover is about the little that can be seen, or is cloud that "
            "it takes for something else."
        )
    elif cloud >= MIN_CLOUD_SHARE:
        warnings.append(
            f"Cloud covers {percent(cloud)} of the scene: the ground below is hidden, and the "
            "model may take cloud for something else."
        )
    if measurements.is_hazy:
        warnings.append(
            "Haze lies over the scene: it was subtracted before measuring, which makes the "
            "measured shares less certain."
        )
    if measurements.dark >= MIN_DARK_SHARE:
        warnings.append(
            f"{percent(measurements.dark)} of the scene is too dark to be measured, probably in "
            "shadow."
        )
    return warnings


def _warn_of_missing_bands(scene: Scene, training_tiles: TrainingStatistics | None) -> list[str]:
    """Return a sentence where the scene lacks infrared bands and no note of it says so.

    Bands that the training tiles lacked as well are not missed.
    """
    known = set(BANDS if training_tiles is None else training_tiles.mean_reflectance)
    missing = sorted(set(BANDS) - set(scene.bands))
    if "B08" in missing:
        infrared, consequence = {"B08"}, "without the near infrared, no land cover is measured"
    else:
        infrared = {"B11", "B12"}
        consequence = "without the short-wave infrared, cloud and snow are not measured"
    if RGB_NOTE in scene.notes or not infrared <= set(missing) or not infrared & known:
        return []
    return [
        f"It has {len(scene.bands)} of 12 bands, without {', '.join(missing)}, so the model sees "
        f"less than it could; {consequence}."
    ]


def _find_unusual_bands(scene: Scene, training_tiles: TrainingStatistics) -> dict[str, str]:
    """Return the bands that are brighter or darker on average than the training tiles."""
    outside = {}
    for band, (low, high) in training_tiles.mean_reflectance.items():
        if band in scene.bands:
            mean = float(np.mean(scene.reflectance[:, :, BANDS.index(band)]))
            if not low <= mean <= high:
                outside[band] = "darker" if mean < low else "brighter"
    return outside


def _lies_outside(scene: Scene, bbox: tuple[float, float, float, float]) -> bool:
    if scene.longitude is None or scene.latitude is None:
        return False
    west, south, east, north = bbox
    return not (west <= scene.longitude <= east and south <= scene.latitude <= north)
