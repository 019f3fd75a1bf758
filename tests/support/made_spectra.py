"""Scenes painted in stripes of land covers with typical spectra."""

from __future__ import annotations

import numpy as np

from earthvlm.scenes.scene import Scene

BANDS = ("B02", "B03", "B04", "B08", "B11")
# Reflectance x 10000 as published spectra have it, roughly.
SPECTRA = {
    "cloud": (4000, 4200, 4300, 4500, 3500),
    "snow": (8000, 7800, 7600, 6500, 700),
    "water": (500, 450, 250, 120, 60),
    "dense vegetation": (250, 450, 300, 3200, 1600),
    "sparse vegetation": (700, 900, 1100, 2200, 2600),
    "bare or built": (1100, 1400, 1700, 2000, 2700),
}


def paint(*covers: str, bands: tuple[str, ...] = BANDS, **known: object) -> Scene:
    """A scene of stripes of these covers, eight pixels wide each."""
    row = [SPECTRA[cover] for cover in covers for _ in range(8)]
    values = np.tile(np.array(row, np.float32), (16, 1, 1))
    keep = [BANDS.index(band) for band in bands]
    return Scene.from_array(values[:, :, keep], bands, **known)
