"""Write files so that a kill or a full disk leaves the old ones; checksums; the cache folder.

Everything is written under a hidden name, flushed to the disk, and renamed at the end.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What the operating system reports where a disk, a quota or the largest allowed file is full.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
IS_WINDOWS = os.name == "nt"
_PROBE_BYTES = 1 << 20
_READ_BYTES = 1 << 22


def cache_folder() -> Path:
    """The folder of converted models and search indexes: `$EARTHVLM_CACHE` or ~/.cache/earthvlm."""
    return Path(os.environ.get("EARTHVLM_CACHE") or Path.home() / ".cache" / "earthvlm")


def checksum(path: Path) -> str:
    """A file's XXH3, which finds damage as fast as memory is read; no protection from forgery."""
    import xxhash

    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, would survive a loss of power."""
    if IS_WINDOWS and path.is_dir():
        return  # Windows opens no folders
    # Windows flushes a file to those alone who may write it.
    descriptor = os.open(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def suggest_folder(path: str | Path, *, or_file: bool = False) -> str:
    """Return "; did you mean ...?" with the folder whose name resembles one that is missing.

    "" where none does. or_file: a file will do, too.
    """
    missing = Path(path)
    try:
        near = missing.absolute().parent.iterdir()
        names = [each.name for each in near if or_file or each.is_dir()]
    except OSError:
        return ""
    found = difflib.get_close_matches(missing.name, names, n=1)
    return f"; did you mean {missing.with_name(found[0])}?" if found else ""


def link_or_copy(source: Path, target: Path) -> None:
    """Let `target` have a file's content: by a link, or by a copy where the system makes none.

    Windows makes links for administrators and developers only, and some file systems never.
    """
    try:
        target.symlink_to(source.resolve())
    except (OSError, NotImplementedError):
        shutil.copyfile(source, target)


@contextmanager
def write_atomically(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder; what is written there replaces `path` at the end.

    An exception leaves the old file and removes the temporary one. Several processes may write one
    path at the same time. durable: flush to the disk, for files that cannot be made again cheaply.
    Raises OSError where the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with _disk_errors(path.parent):
            yield temporary
            if durable:
                fsync(temporary)
        temporary.replace(path)
        if durable:
            fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder, which replaces `folder` at the end.

    An exception leaves the old folder. After a kill between the last two steps `folder` is missing
    and its old content is in `interrupted_folder(folder)`, from where the next call restores it.
    One process may write one folder at a time. Raises OSError where it cannot be written.
    """
    temporary, old = _temporary_folder(folder), interrupted_folder(folder)
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    with _write_folder(temporary, folder.parent):
        yield temporary
    if folder.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if old.is_dir():
            old.rename(folder)
        raise
    fsync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def interrupted_folder(folder: Path) -> Path:
    """Where the old content of a folder is after a kill in the middle of `replace_folder`."""
    return folder.with_name(f".{folder.name}.old")


@contextmanager
def replace_files(folder: Path, last: str) -> Iterator[Path]:
    """Yield a temporary folder, whose files replace those of the same names in `folder` at the end.

    Other files of `folder` stay. last: the file without which the others are not read; it is
    removed first and put back last, so that a kill never leaves old and new files mixed. The next
    call then finishes the replacement. An exception leaves the old files.
    One process may write one folder at a time. Raises OSError where files cannot be written.
    """
    written = folder / ".written"
    if written.is_dir():
        _move_files(written, folder, last)
    temporary = folder / ".part"
    with _write_folder(temporary, folder):
        yield temporary
    temporary.rename(written)
    fsync(folder)
    _move_files(written, folder, last)


def _temporary_folder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


@contextmanager
def _write_folder(temporary: Path, where: Path) -> Iterator[None]:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with _disk_errors(where):
            yield
            for path in (*temporary.rglob("*"), temporary):
                fsync(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _move_files(written: Path, folder: Path, last: str) -> None:
    paths = [path for path in written.rglob("*") if path.is_file()]
    paths.sort(key=lambda path: (path == written / last, path))
    if written / last in paths:
        (folder / last).unlink(missing_ok=True)
    for path in paths:
        target = folder / path.relative_to(written)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
        fsync(target.parent)
    shutil.rmtree(written)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn the libraries' errors about writing files into an OSError, which names a full disk."""
    try:
        yield
    except Exception as error:
        if full := _why_full(folder):
            raise OSError(f"the disk of {folder} is full ({full})") from error
        if _is_about_files(error):
            raise OSError(next(iter(str(error).splitlines()), repr(error))) from error
        raise


def _is_about_files(error: Exception) -> bool:
    """Whether torch or safetensors, which raise no OSError, could not write a file."""
    from safetensors import SafetensorError

    return isinstance(error, SafetensorError) or (
        isinstance(error, RuntimeError) and "inline_container" in str(error)
    )


def _why_full(folder: Path) -> str | None:
    """The system's reason why nothing more can be written into a folder; None where it can be."""
    probe = folder / f".probe-{secrets.token_hex(4)}"
    try:
        with probe.open("wb", buffering=0) as file:
            written = 0
            while written < _PROBE_BYTES:  # one write may be cut short without an error
                written += file.write(bytes(_PROBE_BYTES - written))
    except OSError as error:
        return os.strerror(error.errno) if error.errno in _FULL else None
    finally:
        probe.unlink(missing_ok=True)
    return None
