"""Objects on disk by their hash, and the files of a commit, which refer to them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

LARGE_FILES = (".bin", ".gguf", ".parquet", ".png", ".pt", ".pth", ".safetensors", ".tif", ".zip")


class Objects:
    """Objects in a folder, each in a file named by its SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, digest: str) -> bool:
        return (self.folder / digest).is_file()

    def store(self, content: bytes) -> str:
        """Write an object atomically, and return its hash."""
        digest = hashlib.sha256(content).hexdigest()
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            file.write(content)
        os.replace(file.name, self.folder / digest)
        return digest

    def read(self, digest: str) -> bytes:
        content = (self.folder / digest).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"the disk holds another content than {digest}")
        return content


class Files(Mapping[str, bytes]):
    """The files of a commit, read from disk when they are asked for."""

    def __init__(self, objects: Objects, digests: Mapping[str, str]) -> None:
        self.objects, self.digests = objects, dict(digests)

    def __getitem__(self, path: str) -> bytes:
        return self.objects.read(self.digests[path])

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)


def is_large(path: str) -> bool:
    """Whether a file is stored by LFS according to a new repository's .gitattributes."""
    return path.endswith(LARGE_FILES)


def git_hash(content: bytes) -> str:
    """The hash of a Git blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
