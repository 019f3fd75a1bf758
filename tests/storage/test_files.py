"""Writing files: a kill at any step and a full disk leave the old or the new content."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from earthvlm.storage.files import (
    checksum,
    interrupted_folder,
    replace_files,
    replace_folder,
    sha256,
    write_atomically,
)

resource = pytest.importorskip("resource", reason="Windows bounds no process")

STEPS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


def write_file(folder: Path, text: str) -> None:
    with write_atomically(folder / "file") as path:
        path.write_text(text)


def write_folder(folder: Path, text: str) -> None:
    with replace_folder(folder / "kept") as temporary:
        (temporary / "a").write_text(text)
        (temporary / "b").write_text(text)


def write_files(folder: Path, text: str) -> None:
    with replace_files(folder, last="index") as temporary:
        for name in ("a", "index", "z"):
            (temporary / name).write_text(text)
        if text == "new":
            (temporary / "inside").mkdir()
            (temporary / "inside" / "c").write_text(text)


def run_forked(work: Callable[[], None]) -> int:
    """The exit status of a function in another process; negative for a signal."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def kill_at(step: int, work: Callable[[], None]) -> Callable[[], None]:
    """Work that ends by SIGKILL before its file operation of this number."""

    def run() -> None:
        left = [step]

        def audit(event: str, _: tuple) -> None:
            if event in STEPS:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        work()

    return run


def kill_everywhere(write: Callable[[Path, str], None], check: Callable[[Path], None], root: Path):
    """Check a folder after kills at every step of writing "new" over "old", and write again."""
    for step in range(100):
        folder = root / str(step)
        folder.mkdir()
        write(folder, "old")
        status = run_forked(kill_at(step, lambda folder=folder: write(folder, "new")))
        check(folder)
        write(folder, "next")
        if status == 0:
            assert step > 3  # it was killed before
            return
        assert status == -signal.SIGKILL
    raise AssertionError("writing never came to its end")


def test_killed_write_leaves_a_whole_file(tmp_path):
    def check(folder: Path) -> None:
        assert (folder / "file").read_text() in ("old", "new")

    kill_everywhere(write_file, check, tmp_path)


def test_killed_replacement_leaves_a_whole_folder(tmp_path):
    def check(folder: Path) -> None:
        kept = folder / "kept"
        kept = kept if kept.is_dir() else interrupted_folder(kept)
        texts = {path.read_text() for path in kept.iterdir()}
        assert texts in ({"old"}, {"new"}) and {p.name for p in kept.iterdir()} == {"a", "b"}

    kill_everywhere(write_folder, check, tmp_path)


@pytest.mark.slow
def test_killed_replacement_never_mixes_files(tmp_path):
    def check(folder: Path) -> None:
        if (folder / "index").exists():
            texts = {(folder / name).read_text() for name in ("a", "index", "z")}
            assert texts in ({"old"}, {"new"})
        else:
            assert (folder / ".written" / "index").read_text() == "new"

    kill_everywhere(write_files, check, tmp_path)


@pytest.mark.parametrize("write", [write_file, write_folder, write_files])
def test_writing_removes_temporary_files(write, tmp_path):
    write(tmp_path, "old")
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    assert not any(path.name.startswith(".") for path in before)
    write(tmp_path, "old")
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("write", [write_file, write_folder, write_files])
def test_full_disk_leaves_the_old_files(write, tmp_path):
    write(tmp_path, "old")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError, match=r"the disk of .* is full \(File too large\)"):
            write(tmp_path, "new" * 1000)

    assert run_forked(fill) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_full_disk_is_named_for_torch(tmp_path):
    import torch

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with (
            pytest.raises(OSError, match="is full"),
            write_atomically(tmp_path / "weights") as path,
        ):
            torch.save(torch.zeros(100_000), path)

    assert run_forked(fill) == 0
    assert not list(tmp_path.iterdir())


def test_failed_rename_restores_the_folder(tmp_path, monkeypatch):
    write_folder(tmp_path, "old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise PermissionError("Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        write_folder(tmp_path, "new")
    assert (tmp_path / "kept" / "a").read_text() == "old"


def test_other_errors_pass_unchanged(tmp_path):
    write_file(tmp_path, "old")

    def fail() -> None:
        with write_atomically(tmp_path / "file") as path:
            path.write_text("half")
            raise RuntimeError("mistake")

    with pytest.raises(RuntimeError, match="mistake"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_checksums_are_those_of_the_content(tmp_path):
    for name, content in (("one", b"abc"), ("same", b"abc"), ("other", b"abd")):
        (tmp_path / name).write_bytes(content)
    assert checksum(tmp_path / "one") == checksum(tmp_path / "same") == "78af5f94892f3950"
    assert checksum(tmp_path / "one") != checksum(tmp_path / "other")
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "one") == expected
