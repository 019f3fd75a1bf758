"""A Sentinel-2 image in open rasters or datasets: bands, metadata, and reflectance of its parts."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from earthvlm.scenes.bands import VISIBLE_BANDS
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.parts import Part, choose_part, describe_overview, full_size
from earthvlm.scenes.product import Product
from earthvlm.scenes.rasters.pixel_source import PixelSource, StoredPixels
from earthvlm.scenes.rasters.value_rules import ValueRules, ValueTags, decide_rules
from earthvlm.scenes.reflectance import (
    MIN_BANDS,
    drop_empty_bands,
    fill_missing_pixels,
    mark_empty_bands,
    mark_empty_pixels,
    place_bands,
    refuse_flat_values,
)

MASK_NOTE = "The file's mask was used: the pixels it leaves out are missing."
TOP_OF_ATMOSPHERE_NOTE = (
    "It is a level-1C product, reflectance at the top of the atmosphere: haze brightens its blue "
    "bands, and band B10 is not used."
)
MIRRORED_NOTE = "Its grid is mirrored, so it was turned: north is at the top."


@dataclass(frozen=True)
class ImageMetadata:
    """The facts about an image besides its pixels.

    Attributes:
        name: of the scene.
        tags: what its values mean, by band of its stack.
        date: when it was taken.
        product: that it comes from.
        baseline: of its processing, as in 510 for 05.10.
        top_of_atmosphere: whether it is a level-1C product.
        clean: whether its values are reflectance x 10000 as `Scene.save` writes it.
        notes: what was assumed, in sentences for the user.
    """

    name: str
    tags: ValueTags
    date: datetime.date | None = None
    product: Product | None = None
    baseline: int | None = None
    top_of_atmosphere: bool = False
    clean: bool = False
    notes: tuple[str, ...] = ()


class Sentinel2Image:
    """Reads parts of an image as reflectance x 10000, all by the same rules.

    Args:
        stack: its bands, in rasters or datasets that stay open.
        metadata: its facts.
        boa_offset: whether its values carry the +1000 offset of newer products; None finds out.

    Raises:
        ValueError: its bands or values are not Sentinel-2's.
    """

    def __init__(
        self, stack: PixelSource, metadata: ImageMetadata, boa_offset: bool | None = None
    ) -> None:
        self.stack, self.metadata, self._boa_offset = stack, metadata, boa_offset
        refuse_complex_numbers(stack.dtypes, stack.source)
        if metadata.clean:
            return
        require_visible_bands(tuple(stack), stack.source)
        if stack.dtypes == {"uint8"}:
            raise ValueError(
                f"{stack.source} holds 8-bit values, which are not reflectance; "
                "give reflectance x 10000 as 16-bit integers"
            )
        stack.refuse_other_sensors(metadata.name)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels of its finest bands."""
        return self.stack.shape

    @cached_property
    def rules(self) -> ValueRules:
        """How its values become reflectance, decided from samples of the whole."""
        if self.metadata.tags.trusted and self._boa_offset is None:
            return self._decide(np.empty((0, len(list(self.stack))), np.float32))
        return self._decide(self.stack.sample())

    def read(
        self, bbox: Sequence[float] | None = None, window: Sequence[int] | None = None
    ) -> DecodedImage:
        """Read all of it, or a bounding box or a window of it; an overview where that is large.

        Raises ValueError as `choose_part` does, and for what is no reflectance.
        """
        part = choose_part(self.shape, self.stack.grid, self.stack.source, bbox, window)
        pixels = self.read_stored(part)
        if part == full_size(0, 0, *self.shape) and not self.metadata.clean:
            self._sample_from(pixels)
        return self.decode(pixels, part)

    def read_stored(self, part: Part) -> StoredPixels:
        """Read a part's pixels as stored, for `decode`."""
        return self.stack.read(part, masks=not self.metadata.clean)

    def decode(self, pixels: StoredPixels, part: Part) -> DecodedImage:
        """Convert stored pixels of a part to reflectance.

        Raises BlankSceneError where fewer than half of them hold data.
        """
        values, bands, notes = pixels.values, tuple(self.stack), list(self.metadata.notes)
        if self.metadata.clean:
            valid = self.stack.read_valid(part)
        else:
            notes += [MASK_NOTE] if pixels.masked else []
            rules = self.rules  # before the values change, from which it may be decided
            values, bands, valid, value_notes = fill_values(values, bands, self.stack.source)
            rules.of_bands([list(self.stack).index(band) for band in bands]).apply(values)
            notes += [*value_notes, *rules.notes]
            notes += [TOP_OF_ATMOSPHERE_NOTE] if self.metadata.top_of_atmosphere else []
        metres = self.stack.pixel_metres
        if part.is_reduced:
            notes.append(describe_overview(part, metres))
        overview_of = None
        if part.is_reduced:
            overview_of = part.row, part.column, part.height, part.width
        grid = self.stack.grid and part.grid_of(self.stack.grid)
        arrays: dict[str, Any] = {
            "reflectance": place_bands(values, bands),
            "valid": valid,
            "scl": pixels.scl,
        }
        if axes := self.stack.mirrored_axes:
            arrays = {
                name: None if array is None else np.flip(array, axes)
                for name, array in arrays.items()
            }
            grid = grid and grid.flip(axes, part.rows, part.columns)
            overview_of = None  # a place in it is another in the file
            notes.append(MIRRORED_NOTE)
        place = grid.locate(part.rows / 2, part.columns / 2) if grid else None
        if part.covers(*self.shape):
            place = self.stack.place or place
        longitude, latitude = place or (None, None)
        return DecodedImage(
            **arrays,
            name=self.metadata.name,
            date=self.metadata.date,
            longitude=longitude,
            latitude=latitude,
            notes=tuple(notes),
            pixel_metres=metres and metres * part.height / part.rows,
            grid=grid,
            product=self.metadata.product,
            overview_of=overview_of,
        )

    def _sample_from(self, pixels: StoredPixels) -> None:
        """Decide the rules from pixels of the whole, where these would be read again."""
        parts = self.stack.sample_parts()
        if "rules" in vars(self) or any(part.is_reduced for part in parts):
            return
        count = pixels.values.shape[2]
        samples = [
            pixels.values[p.row : p.row + p.height, p.column : p.column + p.width].reshape(
                -1, count
            )
            for p in parts
        ]
        vars(self)["rules"] = self._decide(np.concatenate(samples))

    def _decide(self, samples: np.ndarray) -> ValueRules:
        return decide_rules(
            samples,
            self.metadata.tags,
            self.stack.source,
            is_float=all(np.dtype(dtype).kind == "f" for dtype in self.stack.dtypes),
            date=self.metadata.date,
            baseline=self.metadata.baseline,
            boa_offset=self._boa_offset,
            pixel_metres=self.stack.pixel_metres,
        )


def refuse_complex_numbers(dtypes: Iterable[str], source: str) -> None:
    """Raise ValueError where bands of these types of values hold complex numbers."""
    if any(np.dtype(dtype).kind not in "uif" for dtype in dtypes):
        raise ValueError(f"{source} holds complex numbers; give reflectance x 10000")


def require_visible_bands(bands: Sequence[str], source: str) -> None:
    """Raise ValueError where B02, B03 or B04 is missing."""
    missing = [band for band in reversed(VISIBLE_BANDS) if band not in bands]
    if missing or len(bands) < MIN_BANDS:
        raise ValueError(
            f"{source} has no {' or '.join(missing)}; a scene needs at least B02, B03 and B04 "
            "with data, named so (or blue, green and red) in the file's band descriptions"
        )


def fill_values(
    values: np.ndarray, bands: tuple[str, ...], source: str
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None, list[str]]:
    """Fill missing pixels and leave out empty bands.

    Returns the values, their bands, which pixels hold data (None where all do) and notes.
    """
    mark_empty_pixels(values)
    mark_empty_bands(values)
    refuse_flat_values(values, source)
    valid, notes = fill_missing_pixels(values, source)
    values, bands, lost = drop_empty_bands(values, bands)
    require_visible_bands(bands, source)
    return values, bands, valid, [*notes, *lost]
