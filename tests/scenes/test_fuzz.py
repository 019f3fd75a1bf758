"""A few hundred damaged files; `python -m tests.support.fuzz_readers` reads many more."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthvlm.scenes.scene import Scene

fuzz_readers = pytest.importorskip("tests.support.fuzz_readers", reason="fuzzing needs hypothesis")


def test_the_samples_open_as_they_are(tmp_path: Path):
    for name, data in fuzz_readers.make_samples().items():
        (tmp_path / name).write_bytes(data)
        assert Scene.open(tmp_path / name).bands


def test_a_grid_outside_its_projection_has_no_place(tmp_path: Path):
    """Found by the fuzzer: GDAL's own error reached the caller."""
    import rasterio
    from rasterio.transform import from_origin

    (tmp_path / "far.tif").write_bytes(fuzz_readers.make_samples()["plain.tif"])
    with rasterio.open(tmp_path / "far.tif", "r+") as file:
        file.transform = from_origin(1e12, 1e12, 10, 10)
    scene = Scene.open(tmp_path / "far.tif")
    assert scene.longitude is None and scene.latitude is None


@pytest.mark.slow
def test_damaged_files_do_no_harm(tmp_path: Path):
    findings = fuzz_readers.fuzz(400, tmp_path)
    assert not findings.wrong
    assert findings.tried == 400 and 0 < findings.opened < 400
    assert 0 < findings.peak_bytes < fuzz_readers.LARGEST_BYTES
