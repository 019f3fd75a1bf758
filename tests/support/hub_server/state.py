"""The Hub's state: repositories with their commits and refs, and faults to simulate."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.hub_server.objects import Files, Objects
from tests.support.hub_server.xet_store import XetStore


@dataclass
class Repository:
    """Commits by their hash, the newest last; tags and branches by name."""

    objects: Objects
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    hardware: str = ""  # of a Space
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    volumes: list[dict] = field(default_factory=list)

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Commit exactly these files; return the commit's hash."""
        return self.commit_stored({p: self.objects.store(b) for p, b in files.items()}, ref)

    def commit_stored(self, digests: Mapping[str, str], ref: str) -> str:
        """Commit files whose objects are already stored."""
        content = json.dumps([len(self.commits), sorted(digests.items())])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = Files(self.objects, digests)
        self.refs[ref] = sha
        return sha

    @property
    def files(self) -> Files:
        """The files of the main branch."""
        return self.commits[self.refs["main"]]

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Faults:
    """Faults of a host that is slow or down.

    hanging: requests are taken and not answered. status: the one that every request gets.
    bytes_a_second: answers arrive no faster.
    """

    hanging: bool = False
    status: int | None = None
    bytes_a_second: float = math.inf


@dataclass
class LocalHub:
    """The server's repositories, the requests it received, and faults to simulate.

    Datasets and spaces are named "datasets/owner/name". gated: repositories nobody may read.
    renamed: new names by old ones. failing: the status every request gets. cut_after: connections
    end after this number of bytes of a file, once for each file named. damaged: files that arrive
    with other bytes, this number of times. lost: files that are listed and cannot be sent.
    requests_left: after this number, connections are cut, "before" a request is read, or "after"
    it was done, without an answer. upload_left: once this number of bytes arrived, connections are
    cut. received: the bytes that arrived. readers: tokens that may read private repositories, and
    write nothing. refuses_volumes: whether Spaces may mount nothing. xet: the large files in Xet's
    form. hanging: the Hub takes requests and does not answer while this holds; hanging_paths:
    those alone whose path matches. storage: how the hosts of large files behave.
    """

    objects: Objects
    xet: XetStore
    url: str = ""
    page_size: int = 1000  # files of a tree in one answer
    storage_url: str = ""
    hanging: bool = False
    hanging_paths: str | None = None
    storage: Faults = field(default_factory=Faults)
    ended: threading.Event = field(default_factory=threading.Event)
    repositories: dict[str, Repository] = field(default_factory=dict)
    collections: dict[str, dict] = field(default_factory=dict)
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
    readers: set[str] = field(default_factory=set)
    refuses_volumes: bool = False
    sent: list[tuple[str, int, int]] = field(default_factory=list)  # path, first byte, bytes

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository(self.objects))


def full_name(kind: str, name: str) -> str:
    """The key of a repository of "models", "datasets" or "spaces" in `LocalHub`."""
    return name if kind == "models" else f"{kind}/{name}"
