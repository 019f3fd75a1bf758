"""What a Hub keeps: contents on disk by their hash, commits that name them, and repositories."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class Objects:
    """Contents in a folder, each in a file called by its SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, digest: str) -> bool:
        return (self.folder / digest).is_file()

    def store(self, content: bytes) -> str:
        """Write a content aside, then give it its name, which is returned."""
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


@dataclass
class Repository:
    """Commits by their hash, the newest last; tags and branches by name."""

    objects: Objects
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    variables: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Commit these files and no others; return the commit's hash."""
        return self.commit_stored({p: self.objects.store(b) for p, b in files.items()}, ref)

    def commit_stored(self, digests: Mapping[str, str], ref: str) -> str:
        """Commit what the objects hold already."""
        content = json.dumps([len(self.commits), sorted(digests.items())])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = Files(self.objects, digests)
        self.refs[ref] = sha
        return sha

    @property
    def files(self) -> Files:
        """Those of the main branch."""
        return self.commits[self.refs["main"]]

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class LocalHub:
    """What the server knows, what went over it, and what should go wrong.

    Datasets and spaces are named "datasets/owner/name". gated: repositories nobody may read.
    renamed: new names by old ones. failing: the status every request gets. cut_after: connections
    end after so many bytes of a file, once for each file named. damaged: files that arrive with
    other bytes, so many times. lost: files that are listed and cannot be sent. requests_left:
    after so many, connections are cut, "before" a request is read, or "after" it was done, without
    an answer. upload_left: once so many bytes arrived, connections are cut. received: the bytes
    that did.
    """

    objects: Objects
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    failing: int | None = None
    cut_after: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    requests_left: int | None = None
    cut: str = "before"
    upload_left: int | None = None
    requests: int = 0
    received: int = 0
    counting: threading.Lock = field(default_factory=threading.Lock)
    sent: list[tuple[str, int, int]] = field(default_factory=list)  # path, first byte, bytes

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository(self.objects))
