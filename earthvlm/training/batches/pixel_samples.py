"""Samples of the segmentation head: scenes with labels of their pixels, varied by drawing."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from earthvlm.data.captioned_scenes import CaptionedScenes, Tile
from earthvlm.data.drawn.phenomena import Labelled, vary
from earthvlm.data.drawn.scenes import draw_scene
from earthvlm.data.labelled_patches import LabelledPatches
from earthvlm.data.labels import LAND_COVER, SceneLabels
from earthvlm.data.pixel_labels import NO_AREA, PixelLabels, cover_set
from earthvlm.data.spectral_consensus import possible_by_spectrum
from earthvlm.models.olmoearth import PreparedScene
from earthvlm.scenes.land_cover import COVERS
from earthvlm.scenes.scene import Scene
from earthvlm.training.batches.sampler import Layout, SampleKey
from earthvlm.training.batches.samples import Batch, FailedSample, TileSamples

# The side of a scene in pixels, for each tile of a layout.
TILE_SIDE = 64
# Layouts with their shares. Half the zoom makes pixels of 20 m.
LAYOUTS: dict[Layout, float] = {(1, 1, 1): 0.6, (2, 2, 1): 0.22, (2, 2, 0.5): 0.18}
# Where scenes come from: labelled patches, if there are any, drawn as a whole, and tiles otherwise.
PATCHES, DRAWN = 0.27, 0.15
# Areas that are nearly all of one cover say less than the spectra of their pixels.
NEARLY_ALL = 0.8
# A coarser patch size than the bridge's own is trained too, more often on large scenes, where it
# saves most.
COARSE, COARSE_SHARE, COARSE_SHARE_LARGE = 8, 0.2, 0.6


@dataclass(frozen=True)
class PixelSample:
    """A prepared scene and the labels of its pixels."""

    scene: PreparedScene
    labels: PixelLabels
    name: str


def label_pixels(scene: Scene, labels: SceneLabels) -> PixelLabels:
    """Return what the spectra and the shares of its cells say of a tile's pixels."""
    present = cover_set(cover for cover, share in labels.shares.items() if share > 0)
    possible = possible_by_spectrum(scene) & np.uint16(present)
    possible = np.where(possible == 0, present, possible).astype(np.uint16)
    rows, columns = labels.cloud.shape
    row = np.arange(scene.height) * rows // scene.height
    column = np.arange(scene.width) * columns // scene.width
    areas = (row[:, None] * columns + column).astype(np.int16)
    shares = np.zeros((rows * columns, len(COVERS)), np.float32)
    for index, cover in enumerate(LAND_COVER):
        shares[:, COVERS.index(cover)] = labels.land_cover[..., index].ravel()
    water = shares[:, COVERS.index("water")]
    areas = np.where(water[areas] > NEARLY_ALL, NO_AREA, areas).astype(np.int16)
    return PixelLabels(possible, areas, shares)


class PixelSamples(TileSamples[PixelSample]):
    """Scenes of labelled tiles and patches by `SampleKey`, drawn over and with bands missing.

    Args:
        tiles: with land-cover shares.
        patches: patches with labels of their pixels; None goes without.
        prepare: prepares a scene for the encoder, with a patch size.
        patch_size: the bridge's.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        tiles: CaptionedScenes,
        patches: LabelledPatches | None,
        prepare: Callable[..., PreparedScene],
        patch_size: int,
        seed: int,
    ) -> None:
        super().__init__(tiles)
        self.patches, self.prepare = patches, prepare
        self.patch_size, self.seed = patch_size, seed
        self._patches_read: dict[str, Labelled] = {}

    def __getitem__(self, key: SampleKey) -> PixelSample:
        rng = np.random.default_rng((self.seed, key.epoch, key.index))
        name, scene, labels = self.draw(key, rng)
        large = scene.height > TILE_SIDE
        coarse = rng.random() < (COARSE_SHARE_LARGE if large else COARSE_SHARE)
        patch = max(self.patch_size, COARSE) if coarse else self.patch_size
        return PixelSample(self.prepare(scene, patch_size=patch), labels, name)

    def draw(self, key: SampleKey, rng: np.random.Generator) -> tuple[str, Scene, PixelLabels]:
        """Draw a scene: its name, its pixels and their labels."""
        rows, columns, zoom = key.layout or (1, 1, 1)
        side = TILE_SIDE * rows
        draw = rng.random()
        if self.patches is not None and draw < PATCHES:
            name, (pixels, labels) = self._cut_patch(side, rng)
        elif draw < PATCHES + DRAWN:
            name, (pixels, labels) = "drawn", draw_scene(side, rng)
        else:
            name, (pixels, labels) = self._join_tiles(key.index, rows, columns, rng)
        pixels, labels = _turn(pixels, labels, rng)
        if zoom != 1:
            labels = labels.halved()
            four = pixels.reshape(side // 2, 2, side // 2, 2, -1)
            pixels = four.mean((1, 3))
        pixels, labels = vary(pixels, labels, rng)
        year, month, day = rng.integers((2016, 1, 1), (2026, 13, 29))
        date = datetime.date(int(year), int(month), int(day))
        return name, Scene(np.ascontiguousarray(pixels, np.float32), date=date), labels

    def _read_tile(self, tile: Tile) -> Labelled:
        if tile.labels is None:
            raise ValueError(f"{tile.name} has no labels, which its pixels need")
        scene = self.tiles.read(tile)  # which keeps tiles, within a bound
        return _resize(scene.reflectance, label_pixels(scene, tile.labels), TILE_SIDE)

    def _join_tiles(
        self, index: int, rows: int, columns: int, rng: np.random.Generator
    ) -> tuple[str, Labelled]:
        tile = self.tiles.tiles[index]
        others = rng.integers(len(self.tiles), size=rows * columns - 1)
        pieces = [self._read_tile(t) for t in (tile, *(self.tiles.tiles[i] for i in others))]
        grid = [pieces[r * columns : (r + 1) * columns] for r in range(rows)]
        pixels = np.concatenate([np.concatenate([p for p, _ in row], axis=1) for row in grid])
        return tile.name, (pixels, PixelLabels.mosaic([[k for _, k in row] for row in grid]))

    def _cut_patch(self, side: int, rng: np.random.Generator) -> tuple[str, Labelled]:
        patches = self.patches
        assert patches is not None
        sources = sorted({patch.file for patch in patches.patches})
        source = sources[rng.integers(len(sources))]  # a large source is not drawn more often
        of_source = [patch for patch in patches.patches if patch.file == source]
        patch = of_source[rng.integers(len(of_source))]
        if patch.id not in self._patches_read:
            scene = patches.read(patch)
            labels = patches.read_labels(patch, scene)
            self._patches_read[patch.id] = scene.reflectance, labels
        return patch.id, _cut(*self._patches_read[patch.id], side, rng)


def _cut(pixels: np.ndarray, labels: PixelLabels, side: int, rng: np.random.Generator) -> Labelled:
    """Cut a random square; a scene that is too small is mirrored at its edges."""
    more = [max(0, side - length) for length in pixels.shape[:2]]
    if any(more):
        edges = [(0, more[0]), (0, more[1])]
        pixels = np.pad(pixels, [*edges, (0, 0)], mode="symmetric")
        labels = labels.mapped(lambda grid: np.pad(grid, edges, mode="symmetric"))
    top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
    window = slice(top, top + side), slice(left, left + side)
    return pixels[window], labels.mapped(lambda grid: grid[window])


def _resize(pixels: np.ndarray, labels: PixelLabels, side: int) -> Labelled:
    """Bring a tile to a side by cutting a fixed part or mirroring its edges."""
    rng = np.random.default_rng(0)
    return _cut(pixels, labels, side, rng) if pixels.shape[:2] != (side, side) else (pixels, labels)


def _turn(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5

    def turn(grid: np.ndarray) -> np.ndarray:
        grid = np.rot90(grid, turns)
        return np.flip(grid, 1) if mirrored else grid

    return turn(pixels), labels.mapped(turn)


def collate_pixels(samples: Sequence[PixelSample | FailedSample]) -> Batch | FailedSample:
    """Join samples into a batch; a failed one takes its place."""
    prepared = []
    for sample in samples:
        if isinstance(sample, FailedSample):
            return sample
        prepared.append(sample)
    return Batch(
        bridge=None,
        scenes=[sample.scene for sample in prepared],
        labels=None,
        sentences=[],
        pixel_labels=[replace(s.labels, possible=s.labels.possible.copy()) for s in prepared],
        names=[sample.name for sample in prepared],
    )
