"""The tutorials run as they stand, in an empty folder, and end with the picture that they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs").glob("tutorial_*.md"))
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
TIMEOUT = 600  # seconds for a block, on a busy machine


def run_tutorial(page: Path, folder: Path) -> str:
    """Run a page's blocks of Python and shell, one process each; return what they print."""
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error::DeprecationWarning:earthvlm",
    }
    printed = ""
    for language, code in BLOCK.findall(page.read_text("utf-8")):
        command = [sys.executable, "-c", code]
        if language == "sh":
            command = ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"{code}\n{done.stderr[-3000:]}"
        printed += done.stdout
    return printed


@pytest.mark.tutorial
@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial_runs_as_it_stands(page, tmp_path):
    printed = run_tutorial(page, tmp_path)
    assert len(printed.splitlines()) >= 4
    assert "± 0%" not in printed  # no measurement is that certain
    with Image.open(tmp_path / "picture.png") as made:
        assert len(made.convert("RGB").getcolors(1 << 24)) > 100


def test_tutorials_end_with_their_picture():
    assert len(TUTORIALS) == 3
    for page in TUTORIALS:
        last = page.read_text("utf-8").rstrip().splitlines()[-1]
        assert re.fullmatch(rf"!\[.+\]\({page.stem}\.png\)", last), page.name
