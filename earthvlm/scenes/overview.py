"""Smaller copies of large scenes, of larger pixels."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from earthvlm.scenes.scene import Scene


def shrink_scene(scene: Scene, most_pixels: int) -> Scene:
    """Return a scene of at most `most_pixels`, each the mean of a square of pixels.

    Pixels without data do not count; a larger pixel has none where most of its square has none.
    What is left over at the right and bottom edges, less than one larger pixel, is cut off. ESA's
    scene classification is left out, because classes have no mean. A scene that is small enough is
    returned as it is.
    """
    factor = math.ceil(math.sqrt(scene.height * scene.width / most_pixels))
    if factor <= 1:
        return scene
    rows, columns = scene.height // factor, scene.width // factor
    squares = (rows, factor, columns, factor)
    pixels = scene.reflectance[: rows * factor, : columns * factor].reshape(*squares, -1)
    valid = None
    if scene.valid is None:
        reflectance = pixels.mean((1, 3))
    else:
        weights = scene.valid[: rows * factor, : columns * factor].reshape(squares)
        counts = weights.sum((1, 3))
        valid = counts > factor**2 / 2
        # Filled pixels are used where a square has nothing else.
        weights = weights | (counts == 0)[:, None, :, None]
        sums = np.einsum("rfcgb,rfcg->rcb", pixels, weights.astype(np.float32))
        reflectance = sums / weights.sum((1, 3))[..., None].astype(np.float32)
    return dataclasses.replace(
        scene,
        reflectance=np.ascontiguousarray(reflectance, np.float32),
        valid=valid,
        scl=None,
        grid=scene.grid and scene.grid.scale(factor, factor),
        pixel_metres=scene.pixel_metres and scene.pixel_metres * factor,
    )
