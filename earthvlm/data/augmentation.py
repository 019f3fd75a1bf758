"""Augment scenes and their labels: rotation, mosaics, haze, dimming and random band dropout.

A bridge trained on clear 64 x 64 tiles of nine bands would know nothing else; this is how it
learns larger scenes, clouds, other light and photos of three bands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from earthvlm.data.labels import SceneLabels
from earthvlm.scenes.bands import BANDS, VISIBLE_BANDS, WAVELENGTHS
from earthvlm.scenes.land_cover import COVERS, CoverMap
from earthvlm.scenes.scene import Scene

# The share of scenes that are only turned: the bridge is mostly used on unaltered scenes.
UNCHANGED = 0.5

WAVELENGTH = np.array([WAVELENGTHS[b] for b in BANDS], np.float32)
IS_VISIBLE = np.array([b in VISIBLE_BANDS for b in BANDS])
TEN_METRE = np.isin(BANDS, (*VISIBLE_BANDS, "B08"))
GREEN, NEAR_INFRARED = BANDS.index("B03"), BANDS.index("B08")
# A pixel brighter than this in the near infrared is not water.
BRIGHTEST_WATER = 1000

# A thick cloud against its own blue: flat to 900 nm, darker in the short-wave infrared.
CLOUD_SPECTRUM = np.interp(WAVELENGTH, [400, 900, 1610, 2190], [1.05, 1.0, 0.7, 0.55]).astype(
    np.float32
)
# Path radiance a level-1C product still holds, reflectance x 10000: Rayleigh scattering's
# fourth power of the wavelength, about 0.07 in the blue.
PATH_RADIANCE = 700 * (490 / WAVELENGTH) ** 4
# Masks of a scene do not fit pixels that were turned, resized or joined, and training reads none.
UNMASKED: dict[str, Any] = {"valid": None, "scl": None}


def augment(
    scene: Scene, labels: SceneLabels, rng: np.random.Generator, zoom: float = 1
) -> tuple[Scene, SceneLabels]:
    """Return a random variation of a scene with matching labels."""
    pixels, labels = _turn(scene.reflectance, labels, rng)
    scene = replace(scene, grid=None)
    if zoom != 1:
        pixels = _resize(pixels, zoom)
        scene = replace(scene, pixel_metres=scene.pixel_metres and scene.pixel_metres / zoom)
    if rng.random() < UNCHANGED:
        pixels = np.ascontiguousarray(pixels, np.float32)
        return replace(scene, reflectance=pixels, **UNMASKED), labels
    if rng.random() < 0.2:
        pixels = stain_water(pixels, rng)
    pixels = _change_light(pixels, rng)
    if rng.random() < 0.2:
        pixels, labels = add_clouds(pixels, labels, rng)
    pixels = _drop_bands(pixels, rng)
    return replace(scene, reflectance=np.asarray(pixels, np.float32), **UNMASKED), labels


def join_scenes(
    rows: list[list[tuple[Scene, SceneLabels]]],
) -> tuple[Scene, SceneLabels]:
    """Join scenes of one size, given row by row, to a larger one with matching labels."""
    pixels = [np.concatenate([s.reflectance for s, _ in row], axis=1) for row in rows]
    labels = SceneLabels.mosaic([[f for _, f in row] for row in rows])
    first = replace(rows[0][0][0], grid=None)
    return replace(first, reflectance=np.concatenate(pixels, axis=0), **UNMASKED), labels


def add_clouds(
    pixels: np.ndarray, labels: SceneLabels, rng: np.random.Generator
) -> tuple[np.ndarray, SceneLabels]:
    """Add synthetic haze or cloud to pixels `[H, W, 12]`, and its shares to the labels."""
    height, width = pixels.shape[:2]
    texture = fractal_noise(height, width, rng)
    if rng.random() < 0.5:  # haze: thin and smooth, stronger in the blue
        thickness = np.clip(0.25 + 0.35 * texture, 0, 0.6) * np.float32(rng.uniform(0.5, 1.0))
        opacity = thickness[..., None] * np.minimum((490 / WAVELENGTH) ** 0.7, 1)
        brightness = np.float32(rng.uniform(3000, 5500))
    else:  # cloud: thick, with thin edges; how much of the sky is drawn first
        cover = rng.choice([rng.uniform(-1.2, 1.2), 3.0], p=[0.8, 0.2])
        thickness = 1 / (1 + np.exp(-(texture + np.float32(cover)) * np.float32(rng.uniform(3, 8))))
        thickness = thickness * np.float32(rng.uniform(0.85, 1.0))
        opacity = thickness[..., None]
        brightness = np.float32(rng.uniform(3500, 9000))
    veil = brightness * CLOUD_SPECTRUM * (1 + 0.1 * texture[..., None])
    pixels = pixels * (1 - opacity) + veil * opacity
    hides = thickness > 0.6
    veils = (thickness > 0.15) & ~hides
    shape = labels.cloud.shape
    return pixels, replace(
        labels,
        cloud=_cell_means(hides, shape),
        haze=_cell_means(veils, shape),
        cover_map=_cover_by_cloud(labels.cover_map, hides),
        predicted_map=_cover_by_cloud(labels.predicted_map, hides),
    )


def stain_water(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken water in the visible bands, as in brown lakes that bogs feed."""
    infrared = pixels[..., NEAR_INFRARED]
    water = (pixels[..., GREEN] > infrared) & (infrared < BRIGHTEST_WATER)
    gains = np.where(IS_VISIBLE, rng.uniform(0.3, 0.8), rng.uniform(0.6, 1.0)).astype(np.float32)
    return np.where(water[..., None], pixels * gains, pixels)


def _cover_by_cloud(cover_map: CoverMap | None, hides: np.ndarray) -> CoverMap | None:
    """Return a map with cloud where it hides the ground; a zoomed scene has another size."""
    if cover_map is None:
        return None
    classes = cover_map.classes
    rows, columns = (
        np.arange(side) * seen // side
        for side, seen in zip(classes.shape, hides.shape, strict=True)
    )
    cloud = np.uint8(COVERS.index("cloud"))
    return CoverMap(np.where(hides[rows[:, None], columns], cloud, classes))


def _cell_means(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    image = torch.from_numpy(mask.astype(np.float32))[None, None]
    return F.adaptive_avg_pool2d(image, shape)[0, 0].numpy()


def fractal_noise(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return smooth random texture `[H, W]` of mean 0 and deviation 1, mostly of large forms."""
    total = torch.zeros(1, 1, height, width)
    for octave in range(4):
        size = 2 ** (octave + 1) + 1
        grid = torch.from_numpy(rng.standard_normal((1, 1, size, size)).astype(np.float32))
        total += F.interpolate(grid, (height, width), mode="bicubic") / 1.8**octave
    texture = total[0, 0].numpy()
    return (texture - texture.mean()) / (texture.std() + 1e-6)


def _turn(
    pixels: np.ndarray, labels: SceneLabels, rng: np.random.Generator
) -> tuple[np.ndarray, SceneLabels]:
    turns = int(rng.integers(4))
    pixels, labels = np.rot90(pixels, turns), labels.rotated(turns)
    if rng.random() < 0.5:
        pixels, labels = np.flip(pixels, 1), labels.flipped(1)
    return pixels, labels


def _resize(pixels: np.ndarray, factor: float) -> np.ndarray:
    size = [8 * max(1, round(side * factor / 8)) for side in pixels.shape[:2]]
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    image = F.interpolate(image, size, mode="bilinear", antialias=factor < 1)
    return image[0].permute(1, 2, 0).numpy()


def _change_light(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary sun, season and sensor: one gain for all bands, and a small one for each."""
    gains = np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.02, len(BANDS)))
    pixels = pixels * gains.astype(np.float32)
    if rng.random() < 0.15:
        pixels = pixels + PATH_RADIANCE * np.float32(rng.uniform(0, 1.2))
    return pixels


def _drop_bands(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    draw = rng.random()
    if draw < 0.2:
        dropped = ~IS_VISIBLE
    elif draw < 0.24:
        dropped = ~TEN_METRE
    elif draw < 0.28:
        dropped = ~IS_VISIBLE & (rng.random(len(BANDS)) < 0.3)
    else:
        return pixels
    return np.where(dropped, np.nan, pixels)
