"""How unlike a bridge's training tiles a scene is, in sentences for its readers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.spectral_indices import measure, percent

CLOUD_WORTH_A_WARNING = 0.05
# A scene this many times as wide as a training tile is described from afar.
MUCH_LARGER = 4


@dataclass(frozen=True)
class TrainingStatistics:
    """What the tiles were like that a bridge learned from.

    means: of each band, the 0.5th and 99.5th percentile of the tiles' mean reflectance x 10000.
    side: their width and height in pixels. region: where and what they were.
    """

    means: dict[str, tuple[float, float]]
    side: int
    region: str


# The 3,134 training tiles of the bundled bridge, by `python -m benchmarks.training_tiles DATA_DIR`.
BUNDLED_TRAINING_TILES = TrainingStatistics(
    means={
        "B02": (126, 1373),
        "B03": (203, 1756),
        "B04": (169, 2153),
        "B08": (154, 4545),
        "B05": (167, 2551),
        "B06": (154, 3676),
        "B07": (151, 4443),
        "B11": (128, 3953),
        "B12": (111, 3150),
    },
    side=64,
    region="Europe",
)


def warn_out_of_distribution(scene: Scene, tiles: TrainingStatistics | None = None) -> list[str]:
    """Sentences on why answers about a scene deserve less trust: cloud, light, size.

    tiles: what the bridge was trained on, where that is known. Missing bands are in the scene's own
    notes.
    """
    warnings = []
    measured = measure(scene)
    if measured is not None and measured.share("cloud") >= CLOUD_WORTH_A_WARNING:
        warnings.append(
            f"Thick cloud over {percent(measured.share('cloud'))} of it, as measured: what lies "
            "below cannot be seen, and the model may take cloud for something else."
        )
    if tiles is None:
        return warnings
    outside = _bands_outside(scene, tiles)
    if outside:
        warnings.append(
            f"It is {' and '.join(sorted(set(outside.values())))} than nearly all tiles the model "
            f"learned from ({', '.join(outside)}), so expect mistakes."
        )
    if max(scene.width, scene.height) >= MUCH_LARGER * tiles.side:
        warnings.append(
            f"It is far larger than the tiles the model learned from ({tiles.side} x {tiles.side} "
            "pixels), so small things in it are easily missed."
        )
    if scene.longitude is not None and tiles.region == "Europe" and not _in_europe(scene):
        warnings.append("It lies outside Europe, where all training tiles were from.")
    return warnings


def _bands_outside(scene: Scene, tiles: TrainingStatistics) -> dict[str, str]:
    """Which bands are brighter or darker on average than the training tiles."""
    outside = {}
    for band, (low, high) in tiles.means.items():
        if band in scene.bands:
            mean = float(np.mean(scene.reflectance[:, :, BANDS.index(band)]))
            if not low <= mean <= high:
                outside[band] = "darker" if mean < low else "brighter"
    return outside


def _in_europe(scene: Scene) -> bool:
    """Within a box around Europe, Iceland and the Canaries left out."""
    return -11 <= (scene.longitude or 0) <= 42 and 34 <= (scene.latitude or 0) <= 72
