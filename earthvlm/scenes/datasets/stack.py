"""The bands of one scene in open xarray datasets, read window by window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earthvlm.scenes.datasets.grid import read_date
from earthvlm.scenes.datasets.layers import list_layers, make_layer, read_tags
from earthvlm.scenes.datasets.windows import Corners, Layer
from earthvlm.scenes.parts import Part, full_size
from earthvlm.scenes.rasters.acquisition import refuse_sensors
from earthvlm.scenes.rasters.band_identification import (
    MASK_LABELS,
    find_mask_kind,
    name_labels,
    refuse_foreign_bands,
)
from earthvlm.scenes.rasters.pixel_source import (
    LARGEST_ENLARGEMENT,
    SAMPLE_SIDE,
    SAMPLE_WINDOWS,
    PixelSource,
    plan_samples,
)

if TYPE_CHECKING:
    import xarray as xr

# Samples of an image without coarser copies: windows a side, each inside of it. Of every one a
# whole block of each band is read.
_WINDOWS_OF_BLOCKS = 3


class DatasetStack(PixelSource):
    """Bands in datasets: variables, or steps along a dimension called band.

    Args:
        groups: datasets of one scene, the finest pixels first; a band in several is read from the
            first, and for overviews from a later one.
        source: names the image in errors.

    Raises:
        ValueError: there are several times, no bands, or coordinates that are no grid.
    """

    def __init__(self, groups: Sequence[xr.Dataset | xr.DataArray], source: str) -> None:
        self.source = source
        self.attributes: Mapping[str, Any] = {**groups[0].attrs}
        layers: dict[str, list[Layer]] = {}
        count = 0
        for group in groups:
            listed = list(list_layers(group))
            count += len(listed)
            refuse_foreign_bands([label for label, _ in listed], source)
            for kind, array in _name_layers(listed):
                layer = make_layer(group, array, source)
                if any(copy.shape == layer.shape for copy in layers.get(kind, ())):
                    raise ValueError(f"{source} has band {kind} twice; give each band once")
                layers.setdefault(kind, []).append(layer)
        if not count:
            raise ValueError(f"{source} holds no variables of rows and columns")
        self._masks = {
            kind: layers.pop(kind)[0] for kind in set(MASK_LABELS.values()) & set(layers)
        }
        self._layers = layers
        arrays = [copies[0].array for copies in layers.values()]
        self.tags = read_tags(arrays)
        self.dtypes = {str(array.dtype) for array in arrays}
        self.date = next(
            (date for each in arrays if (date := read_date(each, self.attributes))), None
        )
        finest = max(
            (copies[0] for copies in layers.values()),
            key=lambda layer: layer.shape[0] * layer.shape[1],
            default=None,
        )
        if finest is None:
            return  # without bands, which `Sentinel2Image` refuses
        self.shape, self.grid = finest.shape, finest.grid
        self._block = finest.block or (1, finest.shape[1])
        self.block_width = self._block[1]
        self.pixel_metres = self.grid.pixel_metres(*self.shape) if self.grid else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def refuse_other_sensors(self, name: str) -> None:
        """Raise ValueError where attributes, pixel size or a name tell that it is no Sentinel-2."""
        refuse_sensors(self.attributes, self.pixel_metres, name, self.source)

    def _read_values(self, part: Part, masks: bool) -> np.ndarray:  # noqa: ARG002  # fills are NaN
        return np.stack([self._read_band(copies, part) for copies in self._layers.values()], axis=2)

    def sample_parts(self) -> list[Part]:
        """Return an overview where every band has a coarser copy, else windows of the whole."""
        height, width = self.shape
        side = SAMPLE_WINDOWS * SAMPLE_SIDE
        if max(height, width) <= side:
            return plan_samples(height, width)
        if all(len(copies) > 1 for copies in self._layers.values()):
            return [full_size(0, 0, height, width).shrunk(side)]
        rows, columns = min(height, SAMPLE_SIDE), min(width, SAMPLE_SIDE)
        tops, lefts = (
            _plan_starts(length, size, block)
            for length, size, block in zip(self.shape, (rows, columns), self._block, strict=True)
        )
        return [full_size(top, left, rows, columns) for top in tops for left in lefts]

    def _read_band(self, copies: Sequence[Layer], part: Part) -> np.ndarray:
        """Read a band from the coarsest of its copies that shows as much as the part does."""
        for layer in reversed(copies):
            corners = self._find_corners(layer, part)
            smallest = min(
                (corners[2] - corners[0]) / part.rows, (corners[3] - corners[1]) / part.columns
            )
            if layer is copies[0] or smallest >= LARGEST_ENLARGEMENT:
                break
        return layer.read_resampled(corners, part.rows, part.columns)

    def _read_mask(self, kind: str, part: Part) -> np.ndarray | None:
        layer = self._masks.get(kind)
        if layer is None:
            return None
        return layer.read_resampled(
            self._find_corners(layer, part), part.rows, part.columns, nearest=True
        )

    def _find_corners(self, layer: Layer, part: Part) -> Corners:
        """Return where the corners of a part lie in a layer, at most at its edges."""
        top, left = self._locate_in(layer.grid, layer.shape, part.row, part.column)
        bottom, right = self._locate_in(
            layer.grid, layer.shape, part.row + part.height, part.column + part.width
        )
        return round(top, 6), round(left, 6), round(bottom, 6), round(right, 6)


def _plan_starts(length: int, size: int, block: int) -> list[int]:
    """Return where samples of a side start, each at the start of a block where that fits."""
    steps = (np.arange(_WINDOWS_OF_BLOCKS) + 0.5) / _WINDOWS_OF_BLOCKS
    return [min(int(step * length) // block * block, length - size) for step in steps]


def _name_layers(layers: Sequence[tuple[str, xr.DataArray]]) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield the bands and masks among labelled layers, as "B02", "mask", "scl" and "clouds"."""
    named = name_labels([label for label, _ in layers])
    for (label, layer), band in zip(layers, named, strict=True):
        kind = find_mask_kind(label) or band
        if kind:
            yield kind, layer
