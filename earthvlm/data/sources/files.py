"""The files of a source: a local folder's, or a Hub repository's, fetched when they are needed."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from earthvlm.storage.files import cache_folder, write_atomically
from earthvlm.storage.hub_errors import plain_errors
from earthvlm.storage.hub_fetch import wait_for

# Metadata lies at most this many folders deep; images may lie deeper.
DEPTH = 3
METADATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
# Where the Hub keeps the Parquet files that it makes of datasets in other formats.
CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True)
class LocalFiles:
    """The files of a folder by their names, which are relative paths with forward slashes."""

    root: Path
    hub_id = None  # of its repository on the Hub

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    def list_metadata(self) -> list[str]:
        """Return the files that may be metadata or hold tables, in alphabetical order."""
        patterns = ["/".join(["*"] * depth) for depth in range(1, DEPTH + 1)]
        found = (path for pattern in patterns for path in self.root.glob(pattern))
        names = (p.relative_to(self.root) for p in found if p.suffix in METADATA_SUFFIXES)
        return sorted(name.as_posix() for name in names if not name.name.startswith("."))

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return (self.root / name).exists()

    def fetch(self, name: str) -> Path:
        """Return a file's path on this machine."""
        return self.root / name

    def locate_unpacked(self, name: str) -> Path:
        """Return where the images of a Parquet file are unpacked, while it stays as it is."""
        path = self.fetch(name).resolve()
        state = path.stat()
        known = f"{path}\0{state.st_size}\0{state.st_mtime_ns}".encode()
        unpacked = f"{hashlib.sha256(known).hexdigest()[:32]}.arrow"
        return cache_folder() / "datasets" / "local" / unpacked

    def discard(self, name: str) -> None:
        """Do nothing: the file is the user's."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file of which only parts are read."""
        return (self.root / name).open("rb")


@dataclass(frozen=True)
class HubFiles:
    """The files of a dataset on the Hub at one commit.

    A file is kept under `$EARTHVLM_CACHE/datasets` once it was needed.
    """

    repo_id: str
    commit: str
    names: frozenset[str]
    endpoint: str

    @classmethod
    def find(cls, repo_id: str, revision: str | None = None) -> HubFiles:
        """Find the newest commit of a revision, of the main branch by default.

        Raises ValueError where there is no such dataset, ConnectionError where the Hub does not
        answer.
        """
        from huggingface_hub import HfApi

        api = HfApi()
        with plain_errors(repo_id, revision):
            about = wait_for(lambda: api.dataset_info(repo_id, revision=revision))
        names = frozenset(file.rfilename for file in about.siblings or ())
        return cls(repo_id, about.sha or "main", names, api.endpoint)

    @property
    def name(self) -> str:
        """The repository's id."""
        return self.repo_id

    @property
    def hub_id(self) -> str | None:
        """The repository's id."""
        return self.repo_id

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return cache_folder() / "datasets" / self.name.replace("/", "--") / self.commit

    def list_metadata(self) -> list[str]:
        """See `LocalFiles`."""
        found = (name for name in self.names if name.endswith(METADATA_SUFFIXES))
        return sorted(name for name in found if name.count("/") < DEPTH)

    def has(self, name: str) -> bool:
        """See `LocalFiles`."""
        return name in self.names

    def fetch(self, name: str) -> Path:
        """See `LocalFiles`. Raises FileNotFoundError, ConnectionError, or ValueError."""
        path = self.folder / name
        if path.is_file():
            return path
        if name not in self.names:
            raise FileNotFoundError(f"The Hub dataset {self.name} has no file {name}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        # As a stream over HTTP: hf_xet's threads do not survive in the forked workers of a loader.
        with plain_errors(self.name, self.commit), write_atomically(path) as temporary:
            with (
                self._system.open(self._remote(name), "rb", block_size=0) as source,
                temporary.open("wb") as target,
            ):
                shutil.copyfileobj(source, target)
        return path

    def locate_unpacked(self, name: str) -> Path:
        """See `LocalFiles`."""
        return self.folder / f"{name}.arrow"

    def discard(self, name: str) -> None:
        """Delete a fetched file that is unpacked, and not needed any more."""
        (self.folder / name).unlink(missing_ok=True)

    def open(self, name: str) -> IO[bytes]:
        """See `LocalFiles`."""
        cached = self.folder / name
        if cached.is_file():
            return cached.open("rb")
        with plain_errors(self.name, self.commit):
            return self._system.open(self._remote(name), "rb")

    def _remote(self, name: str) -> str:
        return f"datasets/{self.name}@{self.commit}/{name}"

    @property
    def _system(self) -> Any:
        from huggingface_hub import HfFileSystem

        return HfFileSystem(endpoint=self.endpoint)


SourceFiles = LocalFiles | HubFiles


def find_hub_files(name: str) -> HubFiles:
    """Open a dataset on the Hub, "owner/name" or "owner/name@revision".

    Takes the Parquet files that the Hub made of it where it has no others that can be read.
    """
    repo_id, _, revision = name.partition("@")
    files = HubFiles.find(repo_id, revision or None)
    if files.list_metadata() or revision:
        return files
    try:
        return HubFiles.find(repo_id, CONVERTED)
    except ValueError:  # there is no such revision
        return files
