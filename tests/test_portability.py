"""Windows and macOS: what they lack is left out or replaced, and text is UTF-8 everywhere.

The tests let Linux behave as they do; only the workflow of `.github` runs there.
"""

from __future__ import annotations

import ast
import ctypes
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from earthvlm.cli import main
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.data.sources.opening import open_scenes
from earthvlm.scenes import memory
from earthvlm.scenes.scene import Scene
from earthvlm.storage import files
from earthvlm.storage.tensors import has_bfloat16
from earthvlm.training import dataloaders
from earthvlm.training.checkpointing import checkpoints
from earthvlm.training.config import TrainingConfig
from tests.conftest import random_scene
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.own_data import write_parquet

ROOT = Path(__file__).parents[1]
FOLDER = "Größe und Maß"  # with spaces and umlauts


@pytest.mark.parametrize("error", [TypeError, AttributeError, OSError])
def test_heaps_are_left_alone_without_glibc(error, monkeypatch):
    """Windows has no library without a name, macOS no such functions."""
    calls = []

    def load(name: object) -> None:
        calls.append(name)
        raise error

    monkeypatch.setattr(ctypes, "CDLL", load)
    memory.limit_heaps()
    memory.trim_memory()
    assert calls == [None, None]


def test_files_are_flushed_as_windows_lets_them(tmp_path, monkeypatch):
    opened, system_open = [], os.open

    def record(path: Path, flags: int) -> int:
        opened.append((Path(path), flags))
        return system_open(path, flags)

    (tmp_path / "file").write_text("a")
    monkeypatch.setattr(files, "IS_WINDOWS", True)
    monkeypatch.setattr(os, "open", record)
    files.fsync(tmp_path / "file")
    files.fsync(tmp_path)
    assert opened == [(tmp_path / "file", os.O_RDWR)]


def refuse_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)


def test_a_file_is_copied_where_links_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("weights")
    files.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").is_symlink()
    refuse_links(monkeypatch)
    files.link_or_copy(tmp_path / "a", tmp_path / "c")
    assert not (tmp_path / "c").is_symlink() and (tmp_path / "c").read_text() == "weights"


@pytest.mark.parametrize("windows", [True, False])
def test_last_checkpoint_is_found_without_links(windows, tmp_path, monkeypatch):
    write = checkpoints.write_checkpoint
    write(tmp_path, "1", lambda folder: (folder / "a").write_text("1"))  # with a link
    monkeypatch.setattr(checkpoints, "IS_WINDOWS", windows)
    refuse_links(monkeypatch)
    for name in ("2", "encoder-3"):
        folder = write(tmp_path, name, lambda folder: (folder / "a").write_text("2"))
        assert not (tmp_path / "checkpoints" / "last").is_symlink()
        assert checkpoints.find_checkpoint("last", tmp_path) == folder
    folder.rename(files.interrupted_folder(folder))  # as a kill leaves it
    assert checkpoints.find_checkpoint("last", tmp_path) == files.interrupted_folder(folder)
    shutil.rmtree(files.interrupted_folder(folder))
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        checkpoints.find_checkpoint("last", tmp_path)


def test_training_reads_tiles_itself_without_fork(tiny_bridge, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dataloaders, "CAN_FORK", False)
    write_generated_chatearthnet(tmp_path, train=1, val=2)
    tiles, config = ChatEarthNet(tmp_path, "val"), TrainingConfig(num_workers=2)
    loaders = dataloaders.StageLoaders(tiny_bridge, config, Accelerator(cpu=True), tiles)
    assert "This system forks no workers" in capsys.readouterr().out
    loader = loaders.validation(tiles)
    assert loader.num_workers == 0 and loader.multiprocessing_context is None
    assert len(next(iter(loader)).scenes) == 2


def test_a_torch_without_mkldnn_has_no_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    assert not has_bfloat16(torch.device("cpu"))


def test_paths_may_hold_any_letters(tmp_path, saved, monkeypatch):
    """Also where the terminal lacks a letter: cp1252 has no 木."""
    folder = tmp_path / FOLDER
    (folder / "scenes").mkdir(parents=True)
    random_scene().save(folder / "scenes" / "Wälder am See 木.tif")
    shutil.copytree(saved, folder / "brücke")
    given = ["--device=cpu", f"--model_path={folder / 'brücke'}"]
    scenes, index = str(folder / "scenes"), str(folder / "mein Index")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "cp1252"))
    assert main(["describe", scenes, "--max_length=2", *given]) == 0
    assert main(["index", scenes, "--output", index, *given]) == 0
    assert main(["search", "a lake", "--index", index, "--top_k=1"]) == 0
    assert "Wälder am See \\u6728" in shown.getvalue().decode("cp1252")


def test_text_is_read_and_written_as_utf_8():
    """Without an encoding, Python on Windows takes the system's."""
    found = []
    for path in sorted((ROOT / "earthvlm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                given = len(node.args) + len(node.keywords)
                if given < {"read_text": 1, "write_text": 2}.get(node.func.attr, 0):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_names_inside_a_folder_have_no_backslashes():
    """On Windows the text of a path has, which neither the Hub nor Markdown takes for folders."""
    found = []
    for path in sorted((ROOT / "earthvlm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            texts = [node.value] if isinstance(node, ast.FormattedValue) else []
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "str":
                texts = node.args
            calls = [text.func for text in texts if isinstance(text, ast.Call)]
            if any(getattr(call, "attr", "") == "relative_to" for call in calls):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_no_file_is_opened_while_another_holds_it(tmp_path, monkeypatch):
    """Windows opens no file again that Python deletes when it is closed."""
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path / "cache"))
    shard = write_parquet([{"text": "A lake."}], [b"a picture"])
    (tmp_path / "train.parquet").write_bytes(shard)
    held, make = [], tempfile.NamedTemporaryFile

    def hold(*args: object, **kwargs: object) -> object:
        held.append(make(*args, **kwargs))
        return held[-1]

    def read(path: Path) -> object:
        assert all(file.closed or Path(file.name) != path for file in held)
        return random_scene()

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", hold)
    monkeypatch.setattr(Scene, "open", read)
    tiles = open_scenes(tmp_path, "train")
    assert tiles.read(tiles.tiles[0]).date == random_scene().date


@pytest.mark.slow
def test_tests_are_found_where_nothing_forks():
    """Those of forked processes are skipped as Windows, which has no such module, collects them."""
    # Imported here, because this file has to be found there too.
    from tests.support.forked_programs import run_program

    plugins = ("-p", "tests.support.without_resource", "-p", "no:cacheprovider")
    done = run_program("-m", "pytest", "--collect-only", "-q", *plugins, "tests")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "tests/training/checkpointing/test_resume.py" not in done.stdout
    assert "tests/test_portability.py::test_tests_are_found" in done.stdout
