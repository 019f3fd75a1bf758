"""The files of a product, in a folder or in a zip archive.

Bands that an archive merely stores are read in place; compressed ones are unpacked for a while.
What an archive may hold is bounded, because a small one can claim to hold terabytes: see
`check_archive`.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from earthvlm.scenes.products.band_files import NamedFile, name_files
from earthvlm.scenes.rasters.parallel import LOCAL_THREADS, map_in_threads
from earthvlm.scenes.rasters.raster_file import (
    FIRST_BYTES,
    RASTER_SUFFIXES,
    RasterFile,
    driver_of,
    raster_driver,
)
from earthvlm.scenes.rasters.raster_limits import check_directories

MAX_FILES = 20_000
MAX_DEPTH = 8  # of folders in folders
MAX_TEXT_BYTES = 16 * 2**20  # of a metadata file; ESA's have about 50 KB
# A band of 10,980 x 10,980 pixels takes about 130 MB as JPEG 2000.
MAX_MEMBER_BYTES = 2 * 2**30
# Of a file's size to what it takes in an archive. Pixels are compressed already; a file that
# shrinks further than this is made to be large.
MAX_RATIO = 100
SMALL_BYTES = 2**20  # a file below this may have any ratio
ZIP_START = b"PK\x03\x04"
_ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class ProductFiles:
    """Files below a folder or in an archive.

    Attributes:
        name: of the folder or archive, for messages.
        root: the folder, or the archive's file.
        names: paths of the files below it, with forward slashes.
        is_archive: whether it is a zip archive.
        in_place: whether compressed rasters, too, are read where they lie, which is slower; for
            processes that may write no files.
    """

    name: str
    root: Path
    names: tuple[str, ...]
    is_archive: bool = False
    in_place: bool = False

    @cached_property
    def bands(self) -> list[NamedFile]:
        """The files among them that hold a band or a mask, by their names."""
        return name_files(self.names)

    def only_raster(self) -> str | None:
        """Return the one raster of an archive that holds no other."""
        rasters = [
            name
            for name in self.names
            if PurePosixPath(name).suffix.lower() in RASTER_SUFFIXES
            and not PurePosixPath(name).name.startswith("._")  # macOS packs these next to files
        ]
        return rasters[0] if self.is_archive and len(rasters) == 1 else None

    def read_text(self, name: str) -> bytes:
        """Read a small file. Raises ValueError for one of more than 16 MiB, or a damaged one."""
        data = self.read_start(name, MAX_TEXT_BYTES + 1)
        if len(data) > MAX_TEXT_BYTES:
            raise ValueError(f"'{PurePosixPath(name).name}' in '{self.name}' is too large to read")
        return data

    def read_start(self, name: str, count: int = 1024) -> bytes:
        """Read the first bytes of a file. Raises ValueError where it cannot be unpacked."""
        if not self.is_archive:
            with (self.root / name).open("rb") as stream:
                return stream.read(count)
        with self._open_member(name) as file:
            return file.read(count)

    def rasters(self, names: Sequence[str], stack: ExitStack) -> list[RasterFile]:
        """Return rasters among the files. Raises ValueError where one is none, or is damaged.

        Those that are compressed in an archive, in which GDAL could not jump, are unpacked into a
        temporary folder that `stack` removes, unless they are to be read in place.
        """
        if not self.is_archive:
            return [RasterFile.on_disk(self.root / name) for name in names]
        with zipfile.ZipFile(self.root) as archive:
            members = [archive.getinfo(name) for name in names]
        packed = {
            each.filename: each.file_size
            for each in members
            if each.compress_type != zipfile.ZIP_STORED
        }
        if not packed or self.in_place:
            return [self._stored_raster(name) for name in names]
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="earthvlm-archive-")))
        if sum(packed.values()) > shutil.disk_usage(folder).free:
            raise ValueError(
                f"'{self.name}' is compressed, and {folder.parent} has too little space to unpack "
                f"its bands ({sum(packed.values()) // 2**20:,} MB); set TMPDIR to another folder"
            )

        def locate(numbered: tuple[int, str]) -> RasterFile:
            number, name = numbered
            if name not in packed:
                return self._stored_raster(name)
            return self._unpack(name, folder / str(number))

        return map_in_threads(locate, list(enumerate(names)), LOCAL_THREADS)

    @contextmanager
    def _open_member(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of the archive. Raises ValueError where it cannot be unpacked."""
        try:
            with zipfile.ZipFile(self.root) as archive, archive.open(name) as file:
                yield file
        except (*_ARCHIVE_ERRORS, EOFError, KeyError) as error:
            raise ValueError(
                f"'{PurePosixPath(name).name}' in '{self.name}' cannot be unpacked: {error}"
            ) from error

    def _unpack(self, name: str, folder: Path) -> RasterFile:
        folder.mkdir()
        target = folder / PurePosixPath(name).name
        with self._open_member(name) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 2**20)
        driver = raster_driver(target)
        if driver is None:
            raise ValueError(f"'{target.name}' in '{self.name}' is neither a GeoTIFF nor JPEG 2000")
        return RasterFile(target.name, str(target), driver, target)

    def _stored_raster(self, name: str) -> RasterFile:
        """Return a raster that is read where it lies in the archive."""
        label = PurePosixPath(name).name
        with self._open_member(name) as file:
            driver = driver_of(file.read(FIRST_BYTES))
            file.seek(0)
            check_directories(file, label)
        if driver is None:
            raise ValueError(f"'{label}' in '{self.name}' is neither a GeoTIFF nor JPEG 2000")
        return RasterFile(label, f"/vsizip/{{{self.root.absolute()}}}/{name}", driver)


def list_folder(folder: Path) -> ProductFiles:
    """List the files below a folder. Raises ValueError where there are more than 20,000."""
    names: list[str] = []
    for where, folders, files in os.walk(folder):
        below = Path(where).relative_to(folder)
        folders.sort()
        if len(below.parts) >= MAX_DEPTH:
            folders.clear()
        names += [(below / name).as_posix() for name in sorted(files)]
        if len(names) > MAX_FILES:
            raise ValueError(
                f"'{folder}' holds more than {MAX_FILES:,} files; give the folder of one scene"
            )
    return ProductFiles(folder.absolute().name, folder.absolute(), tuple(names))


def is_archive(path: Path) -> bool:
    """Return whether a file starts as a zip archive does."""
    with path.open("rb") as file:
        return file.read(len(ZIP_START)) == ZIP_START


def list_archive(path: Path) -> ProductFiles:
    """List the files of a zip archive, after checks of what it claims to hold.

    Raises ValueError for a damaged, encrypted or unreasonable archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (*_ARCHIVE_ERRORS, ValueError) as error:
        raise ValueError(
            f"'{path.name}' is a damaged archive (cut short or corrupt); download it again"
        ) from error
    check_archive(members, path.name)
    names = tuple(sorted(member.filename for member in members))
    return ProductFiles(path.name, path.absolute(), names, is_archive=True)


def check_archive(members: list[zipfile.ZipInfo], name: str) -> None:
    """Raise ValueError for members that are too many, too large, encrypted or named oddly."""
    if len(members) > MAX_FILES:
        raise ValueError(f"'{name}' holds {len(members):,} files, more than {MAX_FILES:,}")
    if len({member.filename for member in members}) < len(members):
        raise ValueError(f"'{name}' holds two files of one name; pack it again")
    for member in members:
        label = member.filename[-80:]
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
            raise ValueError(f"'{name}' holds a file outside of itself, '{label}'")
        if member.flag_bits & 1:
            raise ValueError(f"'{name}' is encrypted; unpack it first")
        size, packed = member.file_size, max(member.compress_size, 1)
        if size > MAX_MEMBER_BYTES or (size > SMALL_BYTES and size / packed > MAX_RATIO):
            raise ValueError(
                f"'{label}' in '{name}' would unpack from {packed:,} to {size:,} bytes, which no "
                "product does"
            )
