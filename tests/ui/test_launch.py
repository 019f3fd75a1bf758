"""How the app starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMANDS = """
import os
from pathlib import Path
from earthvlm.ui.launch import keep_uploads_apart

keep_uploads_apart()
folder = Path(os.environ["GRADIO_TEMP_DIR"])
(folder / "upload").mkdir()
print(folder, oct(folder.stat().st_mode)[-3:])
"""


def run(**environment: str) -> tuple[Path, str]:
    """Return where an app keeps uploads and who may read them, after it has ended."""
    others = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    command = [sys.executable, "-c", COMMANDS]
    done = subprocess.run(
        command, env=others | environment, capture_output=True, text=True, check=True
    )
    folder, mode = done.stdout.strip().rsplit(" ", 1)
    return Path(folder), mode


def test_two_apps_share_no_uploads_and_leave_none(tmp_path):
    (first, mode), (second, _) = (run(TMPDIR=str(tmp_path)) for _ in range(2))
    assert first != second and first.parent == second.parent == tmp_path
    assert mode == "700" or os.name == "nt"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_uploads_can_be_named(tmp_path):
    folder, _ = run(GRADIO_TEMP_DIR=str(tmp_path))
    assert folder == tmp_path and (tmp_path / "upload").exists()
