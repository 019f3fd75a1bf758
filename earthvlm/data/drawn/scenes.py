"""Scenes drawn as a whole, of covers and climates that no training image shows."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from earthvlm.data.augmentation import fractal_noise
from earthvlm.data.drawn.phenomena import Labelled, shade_terrain
from earthvlm.data.drawn.spectra import draw_spectrum
from earthvlm.data.pixel_labels import PixelLabels, cover_set
from earthvlm.scenes.bands import BANDS

# Covers that lie together; a scene draws one to five surfaces of one landscape.
LANDSCAPES = (
    ("bare soil", "bare soil", "sparse vegetation"),
    ("bare soil", "bare soil", "water"),
    ("sparse vegetation", "sparse vegetation", "bare soil", "tree cover"),
    ("snow or ice", "bare soil", "water", "snow or ice"),
    ("snow or ice", "tree cover", "sparse vegetation", "bare soil"),
    ("burnt land", "sparse vegetation", "bare soil"),
    ("burnt land", "tree cover", "cropland or grass"),
    ("water", "tree cover", "cropland or grass"),
    ("water", "water", "sparse vegetation", "bare soil"),
    ("tree cover", "tree cover", "cropland or grass", "bare soil"),
    ("cropland or grass", "cropland or grass", "bare soil", "tree cover"),
)


def draw_scene(size: int, rng: np.random.Generator) -> Labelled:
    """Draw a scene of `size` pixels a side: pixels `[H, W, 12]` and the cover of each pixel."""
    landscape = LANDSCAPES[rng.integers(len(LANDSCAPES))]
    covers = [str(c) for c in rng.choice(landscape, size=rng.integers(1, 6))]
    regions = _draw_regions(size, len(covers), rng)
    pixels = np.zeros((size, size, len(BANDS)), np.float32)
    possible = np.zeros((size, size), np.uint16)
    for number, cover in enumerate(covers):
        inside = regions == number
        pixels[inside] = _draw_surface(size, cover, rng)[inside]
        possible[inside] = cover_set([cover])
    if rng.random() < 0.5:
        pixels = shade_terrain(pixels, rng)
    # The sensor mixes neighbours; at a border a pixel can be either.
    pixels = ndimage.gaussian_filter(pixels, (rng.uniform(0.4, 0.8),) * 2, axes=(0, 1))
    either = np.bitwise_or.reduce(
        [np.roll(possible, shift, axis) for axis in (0, 1) for shift in (-1, 0, 1)]
    )
    return pixels, PixelLabels.of_sets(either)


def _draw_regions(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Divide a square into regions: irregular ones, or parcels with straight borders."""
    if rng.random() < 0.3:
        seeds = rng.uniform(0, size, (4 * count, 2))
        rows, columns = np.mgrid[:size, :size]
        grid = np.stack([rows, columns], axis=2)[:, :, None]
        nearest = np.abs(grid - seeds).sum(3).argmin(2)
        return rng.integers(count, size=len(seeds))[nearest]
    levels = np.stack([fractal_noise(size, size, rng) for _ in range(count)])
    return (levels + rng.normal(0, 0.5, (count, 1, 1))).argmax(0)


def _draw_surface(size: int, cover: str, rng: np.random.Generator) -> np.ndarray:
    """A surface of two spectra of a cover that change into each other, with grain."""
    one, other = draw_spectrum(cover, rng), draw_spectrum(cover, rng)
    part = 1 / (1 + np.exp(-3 * fractal_noise(size, size, rng)))[..., None]
    smooth = cover in ("water", "snow or ice")
    grain = rng.normal(0, rng.uniform(0.005, 0.03 if smooth else 0.12), (size, size, 1))
    return (one * part + other * (1 - part)) * np.exp(grain).astype(np.float32)
