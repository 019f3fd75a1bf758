"""Scene: a Sentinel-2 image, opened from a file or an array, and drawn as composites."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from earthvlm.scenes.bands import (
    BANDS,
    COMPOSITES,
    NDVI_BANDS,
    SCL_CLOUDS,
    SUBSTITUTES,
    VISIBLE_BANDS,
    composite_bands,
    normalise_band_name,
)
from earthvlm.scenes.datasets.dataset import decode_dataset, write_dataset
from earthvlm.scenes.decoded_image import DecodedImage, crop_fields
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.pictures.composites import BALANCED, draw_ndvi
from earthvlm.scenes.pictures.composites import stretch as stretch_values
from earthvlm.scenes.places.formatting import describe_date, describe_place
from earthvlm.scenes.product import Product
from earthvlm.scenes.rasters.geotiff import write_geotiff
from earthvlm.scenes.reading import ReadOptions, read_image, read_triplet_part
from earthvlm.scenes.reflectance import (
    MIN_BANDS,
    check_size,
    convert_to_reflectance,
    darkest_level,
    decide_offset,
    drop_empty_bands,
    fill_missing_pixels,
    mark_empty_bands,
    mark_empty_pixels,
    place_bands,
    subtract_offset,
)

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Scene:
    """A Sentinel-2 scene: its reflectance, and date and place where they are known.

    `reflectance` is float32 `[H, W, 12]` in the order of `earthvlm.scenes.bands.BANDS`, x 10000,
    without the offset of newer products; a missing band is NaN throughout. `longitude` and
    `latitude` (degrees) are of the centre. `notes` are sentences for the user: what was assumed, or
    is missing. `valid` is bool `[H, W]`, False where pixels had no data and were filled, None where
    none were; `scl` is ESA's scene classification, uint8 `[H, W]`, 0 where a pixel has no class.
    `pixel_metres` is the side of a pixel on the ground, `grid` where each pixel lies, and `product`
    the Sentinel-2 product it was cut from; None where that is not known. `overview_of` is, of an
    overview, the part that it shows in pixels of its file: row, column, height and width.
    """

    reflectance: np.ndarray
    date: datetime.date | None = None
    longitude: float | None = None
    latitude: float | None = None
    name: str = "scene"
    notes: tuple[str, ...] = ()
    pixel_metres: float | None = None
    valid: np.ndarray | None = None
    scl: np.ndarray | None = None
    grid: Grid | None = None
    product: Product | None = None
    overview_of: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        shape = self.reflectance.shape
        if len(shape) != 3 or shape[2] != len(BANDS) or self.reflectance.dtype != np.float32:
            raise ValueError(
                f"a Scene's reflectance is float32 [H, W, {len(BANDS)}], not "
                f"{self.reflectance.dtype} {list(shape)}; use Scene.from_array for other arrays"
            )
        check_size(shape[0], shape[1], f"'{self.name}'")
        if _has_holes(self.reflectance):
            raise ValueError(
                f"'{self.name}' has NaN in part of a band; a missing band is NaN throughout"
            )
        for field, mask, dtype in (("valid", self.valid, bool), ("scl", self.scl, np.uint8)):
            if mask is not None and (mask.shape != shape[:2] or mask.dtype != dtype):
                raise ValueError(
                    f"the {field} of '{self.name}' is {mask.dtype} {list(mask.shape)}, not "
                    f"{np.dtype(dtype)} {list(shape[:2])} as its pixels ask for"
                )

    @classmethod
    def open(
        cls,
        path: str | Path,
        image_name: str | None = None,
        *,
        boa_offset: bool | None = None,
        bbox: Sequence[float] | None = None,
        window: Sequence[int] | None = None,
        bands: Sequence[str] | None = None,
    ) -> Scene:
        """Open a Sentinel-2 product or GeoTIFF, a ChatEarthNet PNG triplet or an RGB photo.

        Of an image of more than 2048 x 2048 pixels an overview is read, unless a part is asked for.

        Args:
            path: A file, a .SAFE folder or its zip archive, a folder of it such as R20m, a
                folder with a file for each band, a STAC item, or the address of a raster or item,
                of which only the part is fetched; of a triplet any one PNG, or the data folder.
            image_name: In a ChatEarthNet data folder.
            boa_offset: Whether the values carry the +1000 offset of newer products; None finds out
                from the darkest values, the processing baseline and the date.
            bbox: West, south, east, north in degrees of the part to read.
            window: First column, first row, width, height in pixels of the part to read.
            bands: Names of a raster's bands in their order ("B02"; "mask", "SCL" and "-" for
                bands that are none), in place of what the file says.

        Raises:
            FileNotFoundError: It does not exist, or a partner of a triplet.
            ConnectionError: Its address cannot be reached.
            ValueError: It is no usable scene.
        """
        options = ReadOptions(boa_offset, bbox, window, bands)
        if image_name is not None:
            return cls(**vars(read_triplet_part(Path(path), image_name, options)))
        return cls(**vars(read_image(path, options)))

    @classmethod
    def from_array(
        cls,
        array: np.ndarray,
        bands: Sequence[str],
        *,
        date: datetime.date | None = None,
        longitude: float | None = None,
        latitude: float | None = None,
        name: str = "scene",
        boa_offset: bool | None = None,
        pixel_metres: float | None = None,
        grid: Grid | None = None,
        product: Product | None = None,
    ) -> Scene:
        """Make a scene of reflectance x 10000 `[H, W, C]` and the names of its C bands ("B02").

        Fractions (0 to 1) are recognised and scaled. Pixels that are NaN, or 0 in every band, are
        filled with the median; bands without data are missing. `boa_offset` says whether the +1000
        offset of newer products is in them; None, too, takes them as they are, but a note warns
        where it seems to be. `pixel_metres` is the side of a pixel on the ground. `grid` gives the
        place too, where none is given. Raises ValueError for unknown bands and for no data.
        """
        values = np.asarray(array)
        if values.ndim != 3 or values.shape[2] != len(bands):
            raise ValueError(
                f"the array of '{name}' has the shape {list(values.shape)}, not "
                f"[height, width, {len(bands)}] as its {len(bands)} band names ask for"
            )
        if values.dtype.kind not in "uif":
            raise ValueError(f"the array of '{name}' holds {values.dtype}, not numbers")
        names = _normalise_names(bands, name)
        source = f"'{name}'"
        check_size(values.shape[0], values.shape[1], source)
        values = np.array(values, dtype=np.float32)
        mark_empty_pixels(values)
        mark_empty_bands(values)
        valid, notes = fill_missing_pixels(values, source)
        values, kept, lost = drop_empty_bands(values, names)
        notes += lost + convert_to_reflectance(values, source)
        if boa_offset is None and decide_offset(darkest_level(values), date=date)[0]:
            notes.append(
                "No band is much below 1000, as if the +1000 offset of newer products were in it; "
                "pass boa_offset=True to take it off, or False if it is off."
            )
        notes += subtract_offset(values) if boa_offset else []
        if grid is not None and (longitude is None or latitude is None):
            centre = grid.locate(values.shape[0] / 2, values.shape[1] / 2)
            longitude, latitude = centre or (None, None)
        return cls(
            place_bands(values, kept),
            date=date,
            longitude=longitude,
            latitude=latitude,
            name=name,
            notes=tuple(notes),
            pixel_metres=pixel_metres,
            valid=valid,
            grid=grid,
            product=product,
        )

    @classmethod
    def from_xarray(
        cls,
        data: xr.Dataset | xr.DataArray,
        *,
        name: str = "scene",
        boa_offset: bool | None = None,
    ) -> Scene:
        """Make a scene of an xarray Dataset or DataArray of one time, as cube libraries return it.

        Bands are variables, or steps along a dimension called band, named as in files. CRS (from
        `spatial_ref`), coordinates, time, fill values, scale and offset are used where they are
        there. Needs the extra `xarray`. Raises ValueError for several times, unknown bands, uneven
        coordinates and no data.
        """
        return cls(**vars(decode_dataset(data, name, boa_offset)))

    def to_xarray(self) -> xr.Dataset:
        """Return a Dataset of reflectance from 0 to 1, a float32 variable `[y, x]` for each band.

        Pixels without data are NaN. Coordinates, CRS (in `spatial_ref`, as rioxarray reads it),
        time, product and scene classification are kept; `from_xarray` makes the same scene of it.
        Needs the extra `xarray`.
        """
        return write_dataset(DecodedImage(**vars(self)))

    @property
    def cloud_mask(self) -> np.ndarray | None:
        """Where the scene classification has cloud or cirrus, bool `[H, W]`; None without one."""
        return None if self.scl is None else np.isin(self.scl, SCL_CLOUDS)

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands that are present, in the order of `earthvlm.scenes.bands.BANDS`."""
        missing = np.isnan(self.reflectance[0, 0])
        return tuple(band for band, gone in zip(BANDS, missing, strict=True) if not gone)

    @property
    def nbytes(self) -> int:
        """The bytes that its arrays take."""
        arrays = (self.reflectance, self.valid, self.scl)
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def height(self) -> int:
        """The number of pixel rows."""
        return self.reflectance.shape[0]

    @property
    def width(self) -> int:
        """The number of pixel columns."""
        return self.reflectance.shape[1]

    @property
    def is_rgb_only(self) -> bool:
        """Whether only the three visible bands are present."""
        return set(self.bands) == set(VISIBLE_BANDS)

    def available_composites(self) -> tuple[str, ...]:
        """Return the names of the composites that its bands allow."""
        return tuple(n for n, bands in COMPOSITES.items() if not self._missing(bands or NDVI_BANDS))

    def composite(self, name: str = "true colour", stretch: str = BALANCED) -> Image.Image:
        """Draw a composite as an RGB picture of the scene's size.

        name: of `earthvlm.scenes.bands.COMPOSITES`, or three bands for red, green and blue, as in
        "B11 B08 B02". stretch: of `earthvlm.scenes.pictures.composites.STRETCHES`: "balanced" goes
        from about the 2nd to the 98th percentile. NDVI has a fixed colour map from -0.2 to 0.9.
        Raises ValueError for an unknown composite or stretch, and for missing bands.
        """
        bands = composite_bands(name)
        missing = self._missing(bands or NDVI_BANDS)
        if missing:
            raise ValueError(
                f"'{self.name}' lacks {', '.join(missing)} for {name}; "
                f"its bands allow {', '.join(self.available_composites()) or 'no composite'}"
            )
        if bands is None:
            return Image.fromarray(draw_ndvi(*(self._band(band) for band in NDVI_BANDS)))
        values = np.stack([self._band(band) for band in bands], axis=2)
        is_true = bands == VISIBLE_BANDS
        return Image.fromarray(stretch_values(values, true_colour=is_true, how=stretch))

    def thumbnail(self, size: int = 96) -> Image.Image:
        """Draw it at most `size` pixels a side: true colour, else what bands allow, else grey."""
        names = self.available_composites()
        if names:
            picture = self.composite(names[0])
        else:
            band = BANDS.index(self.bands[0])
            picture = Image.fromarray(
                stretch_values(self.reflectance[:, :, [band] * 3], true_colour=False)
            )
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
        return picture

    def summary(self) -> str:
        """Return one line for people: size, bands, date and place."""
        missing = [band for band in BANDS if band not in self.bands]
        bands = "all 12 bands"
        if self.is_rgb_only:
            bands = "red, green and blue only (3 of 12 bands)"
        elif missing:
            bands = f"{len(self.bands)} of 12 bands (without {', '.join(missing)})"
        parts = [f"{self.width} x {self.height} pixels", bands]
        parts.append(describe_date(self.date) if self.date else "date unknown")
        parts.append(describe_place(self.longitude, self.latitude) or "place unknown")
        return ", ".join(parts)

    def save(self, path: str | Path) -> None:
        """Write its bands as a uint16 GeoTIFF that opens to the same scene (values rounded).

        Grid, date, place and product are kept. The file's name becomes the scene's name when it is
        opened; notes are not kept.
        """
        write_geotiff(
            Path(path),
            self.reflectance,
            self.date,
            self.longitude,
            self.latitude,
            self.pixel_metres,
            valid=self.valid,
            scl=self.scl,
            grid=self.grid,
            product=self.product,
        )

    def crop(self, row: int, column: int, height: int, width: int) -> Scene:
        """Return the part whose first pixel is at this row and column, with its own place.

        Raises ValueError where the part is not inside, or has fewer than 8 pixels a side.
        """
        if not (0 <= row <= self.height - height and 0 <= column <= self.width - width):
            raise ValueError(
                f"{height} x {width} pixels from row {row} and column {column} are not inside "
                f"'{self.name}', which has {self.height} rows and {self.width} columns"
            )
        return replace(self, **crop_fields(self, row, column, height, width))

    def find_band(self, band: str) -> np.ndarray | None:
        """Return a band's reflectance x 10000, `[H, W]`, or that of its substitute; else None.

        B08 and B8A, of nearly the same wavelengths, replace each other.
        """
        present = self.bands
        for name in (band, SUBSTITUTES.get(band)):
            if name in present:
                return self.reflectance[:, :, BANDS.index(name)]
        return None

    def _band(self, band: str) -> np.ndarray:
        values = self.find_band(band)
        if values is None:
            raise ValueError(f"'{self.name}' has no band {band}")
        return values

    def _missing(self, bands: Sequence[str]) -> list[str]:
        present = self.bands
        return [b for b in bands if b not in present and SUBSTITUTES.get(b) not in present]


def _normalise_names(bands: Sequence[str], name: str) -> tuple[str, ...]:
    """Return bands as in "B02". Raises ValueError for unknown, repeated and too few bands."""
    names = []
    for band in bands:
        known = normalise_band_name(band)
        if known is None:
            raise ValueError(f"'{band}' is no band of Sentinel-2; known are {', '.join(BANDS)}")
        names.append(known)
    if len(set(names)) != len(names) or len(names) < MIN_BANDS:
        raise ValueError(
            f"'{name}' has the bands {', '.join(names)}; give at least {MIN_BANDS} different ones"
        )
    return tuple(names)


def _has_holes(reflectance: np.ndarray) -> bool:
    """Whether some pixels of a band are NaN, or every band is missing."""
    if not np.isnan(reflectance.min()):  # a tenth of the time of a look at each value
        return False
    holes = np.isnan(reflectance)
    return bool((holes.any(axis=(0, 1)) != holes[0, 0]).any() or holes.all())
