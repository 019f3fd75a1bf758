"""Cut large images into tiles, each a Scene with its own place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.parts import full_size
from earthvlm.scenes.rasters.sentinel2_image import Sentinel2Image
from earthvlm.scenes.reading import ReadOptions, open_parts
from earthvlm.scenes.reflectance import BlankSceneError
from earthvlm.scenes.scene import Scene

TILE_SIZE = 256  # pixels, as ChatEarthNet's tiles
# Tiles are cut from pieces of about this size, in which each stored block is decoded once. At 52
# bytes a pixel they take 55 MB.
PIECE_PIXELS = 1024 * 1024


class TiledRaster:
    """An image that is read tile by tile; `empty` counts tiles left out for lack of data.

    Args:
        path: An image or a product as `Scene.open` takes it.
        name: The tiles' name; where there are several, _rROW_cCOLUMN is added.
        tile_size: Pixels a side.
        boa_offset: Whether the values carry the +1000 offset of newer products; None decides from
            pixels of the whole image, for all tiles alike.
        bands: The names of the bands in their order, in place of what the file says.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        tile_size: int = TILE_SIZE,
        boa_offset: bool | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        self.path, self.name, self.tile_size, self.empty = path, name, tile_size, 0
        self._options = ReadOptions(boa_offset, bands=bands)

    def tiles(self) -> Iterator[Scene]:
        """Yield each tile that holds data.

        Raises ValueError as `Scene.open` does for what is no Sentinel-2 reflectance.
        """
        with open_parts(self.path, self._options) as image:
            if isinstance(image, DecodedImage):
                yield from self._crop_tiles(Scene(**vars(image)))
                return
            for scene in self._read_tiles(image):
                if scene is None:
                    self.empty += 1
                else:
                    yield scene

    def _crop_tiles(self, whole: Scene) -> Iterator[Scene]:
        """Cut the tiles of a picture, which is not larger than a scene."""
        size = self.tile_size
        rows, columns = (_plan_starts(side, size) for side in (whole.height, whole.width))
        for row, y in enumerate(rows):
            for column, x in enumerate(columns):
                tile = whole.crop(y, x, min(size, whole.height - y), min(size, whole.width - x))
                name = self._name_tile(row, column, len(rows) * len(columns))
                yield Scene(**vars(tile) | {"name": name})

    def _read_tiles(self, image: Sentinel2Image) -> Iterator[Scene | None]:
        """Read the tiles piece by piece; None for one with data in less than half of its pixels."""
        size = self.tile_size
        height, width = image.shape
        rows, columns = (list(enumerate(_plan_starts(side, size))) for side in image.shape)
        down, across = _plan_piece(image, size)
        for i in range(0, len(rows), down):
            for j in range(0, len(columns), across):
                piece_rows, piece_columns = rows[i : i + down], columns[j : j + across]
                top, left = piece_rows[0][1], piece_columns[0][1]
                bottom = min(piece_rows[-1][1] + size, height)
                right = min(piece_columns[-1][1] + size, width)
                pixels = image.read_stored(full_size(top, left, bottom - top, right - left))
                for row, y in piece_rows:
                    for column, x in piece_columns:
                        part = full_size(y, x, min(size, height - y), min(size, width - x))
                        cut = pixels.cut(y - top, x - left, part.height, part.width)
                        try:
                            found = image.decode(cut, part)
                        except BlankSceneError:
                            yield None
                            continue
                        name = self._name_tile(row, column, len(rows) * len(columns))
                        yield Scene(**vars(found) | {"name": name})
                        del found
                del pixels  # before the next piece is read: two would take twice the memory

    def _name_tile(self, row: int, column: int, count: int) -> str:
        return f"{self.name}_r{row:03d}_c{column:03d}" if count > 1 else self.name


def _plan_starts(length: int, size: int) -> list[int]:
    """Return where tiles start on a side; the last one overlaps its neighbour."""
    count = -(-length // size)
    return [min(number * size, max(length - size, 0)) for number in range(count)]


def _plan_piece(image: Sentinel2Image, size: int) -> tuple[int, int]:
    """Return how many tiles down and across are read together.

    Strips across the whole image are decoded whole, so that a piece is as wide as the image there.
    """
    width = image.shape[1]
    if image.stack.block_width >= width:
        across = -(-width // size)
        return max(1, PIECE_PIXELS // (size * width)), across
    side = max(1, int(PIECE_PIXELS**0.5) // size)
    return side, side
