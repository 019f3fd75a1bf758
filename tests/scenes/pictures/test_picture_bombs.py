"""WebP, MPO and JPEG 2000 files that ask for more than they show, opened as uploads are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from earthvlm.scenes.isolated_reader import IsolatedReader
from earthvlm.scenes.scene import Scene
from tests.support.made_pictures import write_webp


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    reader = IsolatedReader(readers=1)
    yield reader
    reader.close()


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_wide_webp_is_refused_by_its_header(tmp_path: Path, frames: int):
    path = tmp_path / "wide.webp"
    path.write_bytes(write_webp(9900, 9900, frames))
    with pytest.raises(ValueError, match="9900 x 9900 pixels; .* at most 40 million"):
        Scene.open(path)


def test_wide_lossy_webp_is_refused_by_its_header(tmp_path: Path):
    path = tmp_path / "lossy.webp"
    Image.effect_noise((64, 32), 90).convert("RGB").save(path)
    assert Scene.open(path).width == 64
    data = bytearray(path.read_bytes())
    assert data[12:16] == b"VP8 "
    data[26:30] = b"\xff\x3f\xff\x3f"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="16383 x 16383 pixels"):
        Scene.open(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's RLIMIT_AS")
def test_the_largest_webp_fits_in_a_child(reader: IsolatedReader, tmp_path: Path):
    path = tmp_path / "large.webp"
    path.write_bytes(write_webp(6324, 6324))
    with pytest.raises(ValueError, match="has no data in it"):  # decoded: it has one colour
        reader.open(path)


def test_animations_are_opened_by_their_first_frame(reader: IsolatedReader, tmp_path: Path):
    path = tmp_path / "many.webp"
    path.write_bytes(write_webp(64, 64, frames=5000))
    with pytest.raises(ValueError, match="has no data in it"):
        reader.open(path)


def test_an_mpo_is_opened_by_its_first_picture(reader: IsolatedReader, tmp_path: Path):
    small = Image.effect_noise((64, 48), 90).convert("RGB")
    path = tmp_path / "several.jpg"
    small.save(path, "MPO", save_all=True, append_images=[small.resize((2000, 1000))] * 2)
    scene = reader.open(path)
    assert (scene.width, scene.height) == (64, 48)


@pytest.fixture
def write_jpeg2000(tmp_path: Path):
    def write(bands: int, side: int, tile: int) -> Path:
        path = tmp_path / "made.jp2"
        options = {"count": bands, "height": side, "width": side, "dtype": "uint8"}
        options |= {"BLOCKXSIZE": tile, "BLOCKYSIZE": tile, "RESOLUTIONS": 1}
        noise = np.random.default_rng(0).integers(0, 255, (bands, side, side), dtype=np.uint8)
        with rasterio.open(path, "w", driver="JP2OpenJPEG", **options) as file:
            file.write(noise)
        return path

    return write


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_jpeg2000_tiles_are_bounded_by_their_image(reader: IsolatedReader, write_jpeg2000):
    path = write_jpeg2000(3, 64, 64)
    assert reader.open(path).width == 64
    data = bytearray(path.read_bytes())
    size = data.index(b"\xff\x51") + 22  # XTsiz and YTsiz of the codestream's SIZ marker
    assert data[size : size + 8] == (64).to_bytes(4) * 2
    data[size : size + 8] = (2**31 - 1).to_bytes(4) * 2
    path.write_bytes(data)
    assert reader.open(path).width == 64


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_jpeg2000_sides_are_bounded_by_its_header(write_jpeg2000):
    path = write_jpeg2000(3, 64, 64)
    data = bytearray(path.read_bytes())
    codestream = data.index(b"\xff\x51")  # the image's sides, and its tiles'
    for at in (data.index(b"ihdr") + 4, codestream + 6, codestream + 22):
        data[at : at + 8] = (60_000).to_bytes(4) * 2
    path.write_bytes(data)
    with pytest.raises(ValueError, match="'made.jp2' (is 60,000 x 60,000 pixels|is stored in)"):
        Scene.open(path)
