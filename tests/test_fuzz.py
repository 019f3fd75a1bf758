"""A few hundred damaged files; `python -m tests.fuzz_readers --count 100000` gives many more."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthvlm.scene import Scene

fuzz_readers = pytest.importorskip("tests.fuzz_readers", reason="fuzzing needs hypothesis")


def test_the_samples_open_as_they_are(tmp_path: Path):
    for name, data in fuzz_readers.make_samples().items():
        (tmp_path / name).write_bytes(data)
        assert Scene.open(tmp_path / name).bands


def test_damaged_files_do_no_harm(tmp_path: Path):
    findings = fuzz_readers.fuzz(400, tmp_path)
    assert not findings.wrong
    assert findings.tried == 400 and 0 < findings.opened < 400
    assert 0 < findings.peak_bytes < fuzz_readers.LARGEST_BYTES
