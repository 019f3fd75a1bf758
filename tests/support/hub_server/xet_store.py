"""Files as xorbs and chunks, made by hf_xet itself.

A shard lists the terms of its files and their SHA-256; a xorb holds chunks, each after a header of
eight bytes (version, three bytes of its stored length, scheme, three bytes of its own length). A
shard is a header and then entries of 48 bytes: for each file its hash, flags and number of terms,
the terms, where a flag says so a hash for each term, and where another says so the SHA-256.
"""

from __future__ import annotations

import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.hub_server.objects import Objects

ENTRY = 48  # bytes of each entry of a shard, and of its header
LAST = "f" * 64
HAS_TERM_HASHES, HAS_SHA256 = 1 << 31, 1 << 30
TOKEN_SECONDS = 3600


@dataclass(frozen=True)
class Term:
    """A section of a file: consecutive chunks of a xorb."""

    xorb: str
    length: int
    first_chunk: int
    end_chunk: int


@dataclass(frozen=True)
class XetFile:
    """The reconstruction of a file from xorbs."""

    xet_hash: str
    sha256: str
    terms: tuple[Term, ...]


@dataclass
class XetStore:
    """The large files of a Hub as Xet stores them: converted on first request, or uploaded.

    names: the paths by which faults name files, by their Xet hash.
    """

    objects: Objects
    folder: Path
    files: dict[str, XetFile] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)  # Xet's, by SHA-256
    names: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, path: str, digest: str) -> str | None:
        """The Xet hash of a content; None for an empty one, which has no chunks."""
        if not self.objects.read(digest):
            return None
        with self.lock:
            if digest not in self.hashes:
                self._convert(digest)
            self.names[self.hashes[digest]] = path
        return self.hashes[digest]

    def add_shard(self, shard: bytes) -> None:
        with self.lock:
            for file in _read_shard(shard):
                self.files[file.xet_hash] = file
                self.hashes[file.sha256] = file.xet_hash

    def add_xorb(self, xorb: str, content: bytes) -> None:
        (self.folder / xorb).write_bytes(content)

    def read_xorb(self, xorb: str) -> bytes:
        return (self.folder / xorb).read_bytes()

    def find_bytes(self, term: Term) -> tuple[int, int]:
        """The first and last byte of a term's chunks within its xorb."""
        content, starts = self.read_xorb(term.xorb), [0]
        for _ in range(term.end_chunk):
            stored = int.from_bytes(content[starts[-1] + 1 : starts[-1] + 4], "little")
            starts.append(starts[-1] + 8 + stored)
        return starts[term.first_chunk], starts[term.end_chunk] - 1

    def restore(self, digest: str, storage_url: str, token: str) -> bool:
        """Reconstruct an uploaded file and store it as an object; False if it was not uploaded."""
        import hf_xet

        if digest not in self.hashes:
            return False
        file = self.files[self.hashes[digest]]
        path = Path(tempfile.mkdtemp(dir=self.folder)) / digest
        group = hf_xet.XetSession().new_file_download_group(
            endpoint=f"{storage_url}/own",
            token=token,
            token_expiry_unix_secs=int(time.time()) + TOKEN_SECONDS,
        )
        with group:
            size = sum(term.length for term in file.terms)
            group.start_download_file(hf_xet.XetFileInfo(file.xet_hash, size), str(path))
        return self.objects.store(path.read_bytes()) == digest

    def _convert(self, digest: str) -> None:
        """Let hf_xet write a content into a local store, which only one session may open."""
        import hf_xet

        folder = Path(tempfile.mkdtemp(dir=self.folder))
        commit = hf_xet.XetSession().new_upload_commit(
            endpoint=f"local://{folder}",
            token="any",
            token_expiry_unix_secs=int(time.time()) + TOKEN_SECONDS,
        )
        with commit:
            path = str(self.objects.folder / digest)
            commit.start_upload_file(path, sha256=hf_xet.COMPUTE_SHA256)
        for xorb in folder.glob("xet/xorbs/xorbs/default.*"):
            if not xorb.suffix.endswith("tagset"):
                self.add_xorb(xorb.name.removeprefix("default."), xorb.read_bytes())
        for shard in folder.glob("xet/xorbs/shards/*.mdb"):
            self.add_shard(shard.read_bytes())


def _read_shard(shard: bytes) -> Iterator[XetFile]:
    at = ENTRY
    while (xet_hash := _read_hash(shard, at)) != LAST:
        flags, count = struct.unpack_from("<2I", shard, at + 32)
        terms = []
        for _ in range(count):
            at += ENTRY
            terms.append(Term(_read_hash(shard, at), *struct.unpack_from("<3I", shard, at + 36)))
        if flags & HAS_TERM_HASHES:
            at += count * ENTRY
        if flags & HAS_SHA256:
            at += ENTRY
        yield XetFile(xet_hash, _read_hash(shard, at), tuple(terms))
        at += ENTRY


def _read_hash(data: bytes, at: int) -> str:
    """Xet writes a hash as four 64-bit numbers, the last byte of each first in memory."""
    return "".join(data[at + i : at + i + 8][::-1].hex() for i in range(0, 32, 8))
