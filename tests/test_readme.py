"""The README's Python example runs as printed, and it fits its first screens."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import earthvlm
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.test_docs import code_blocks

ROOT = Path(earthvlm.__file__).parents[1]
BUNDLED = ROOT / "earthvlm" / "bundled"


@pytest.mark.slow
@pytest.mark.skipif(
    not (BUNDLED / "bridge" / "config.json").is_file()
    or not any((BUNDLED / "embeddings").glob("*.parquet")),
    reason="the bundled bridge or embeddings have not been built: see hub/bundle.py",
)
def test_python_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = code_blocks(ROOT / "README.md", "python")
    scene = next((BUNDLED / "embeddings" / "scenes").glob("*.tif"))
    shutil.copy(scene, tmp_path / "scene.tif")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    summary, *lines = capsys.readouterr().out.splitlines()
    assert "bands" in summary
    assert len(lines) >= 4


def test_readme_fits_its_first_screens():
    assert len((ROOT / "README.md").read_bytes()) <= 9 * 1024


def test_generated_data_reads_as_chatearthnet(tmp_path):
    names = write_generated_chatearthnet(tmp_path, train=1, val=1)
    for name in names:
        scene = earthvlm.Scene.open(tmp_path, name)
        assert (scene.height, scene.width, len(scene.bands)) == (64, 64, 9)
        assert scene.notes == ()
