"""The README's Python and shell examples run as printed."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

import earthvlm
from earthvlm.cli import _build_parser
from tests.support.generated_chatearthnet import write_generated_chatearthnet

ROOT = Path(earthvlm.__file__).parents[1]
BUNDLED = ROOT / "earthvlm" / "bundled"


def read_code_blocks(language: str, page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.skipif(
    not (BUNDLED / "bridge" / "config.json").is_file()
    or not any((BUNDLED / "embeddings").glob("*.parquet")),
    reason="the bundled bridge or embeddings have not been built: see hub/bundle.py",
)
def test_the_python_examples_run(tmp_path, monkeypatch, capsys):
    (example,) = read_code_blocks("python")
    scene = next((BUNDLED / "embeddings" / "scenes").glob("*.tif"))
    shutil.copy(scene, tmp_path / "scene.tif")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    summary, *lines = capsys.readouterr().out.splitlines()
    assert "bands" in summary
    assert len(lines) >= 4


def test_commands_have_the_arguments_that_are_shown():
    commands = [
        shlex.split(line, comments=True)
        for block in read_code_blocks("sh")
        for line in block.splitlines()
        if line.startswith("earthvlm ")
    ]
    assert len(commands) >= 5
    for command in commands:
        _build_parser().parse_args(command[1:])


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = set(
        re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    assert {"demo", "test", "train-smoke"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_generated_data_reads_as_chatearthnet(tmp_path):
    names = write_generated_chatearthnet(tmp_path, train=1, val=1)
    for name in names:
        scene = earthvlm.Scene.open(tmp_path, name)
        assert (scene.height, scene.width, len(scene.bands)) == (64, 64, 9)
        assert scene.notes == ()
