"""Check whether the files in the Hub's cache have the content that the Hub named.

The Hub's client checks a file's length only, and stores it under its hash: SHA-256 for large files,
Git's hash for others. A link in `snapshots/` leads to that name in the repository's `blobs/`. From
there a second link may lead to a store that all repositories share, where files are named by Xet's
hash. So only the first link names the hash to compare. Nothing is deleted here: the client replaces
damaged files when they are downloaded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GIT_HASH_LENGTH, SHA256_LENGTH = 40, 64
# A folder next to `blobs/`: an empty file for each verified blob, newer than the blob.
VERIFIED = "verified"


def find_damaged(snapshot: Path, patterns: Sequence[str]) -> list[str]:
    """List the files of a snapshot that match the patterns and whose hash is wrong.

    Reads each file once, and again only after it was replaced. A cache without links, as on Windows
    without the right to make them, stores no hashes, and none of its files is listed.
    """
    from huggingface_hub.utils import filter_repo_objects

    names = (path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*"))
    matching = sorted(filter_repo_objects(names, allow_patterns=list(patterns)))
    return [name for name in matching if not _is_verified(snapshot / name)]


def _is_verified(path: Path) -> bool:
    if not path.is_symlink():
        return True
    blob = path.parent / path.readlink()
    if len(blob.name) not in (GIT_HASH_LENGTH, SHA256_LENGTH):
        return True
    mark = blob.parents[1] / VERIFIED / blob.name
    changed = max(blob.stat().st_mtime_ns, blob.lstat().st_mtime_ns)
    if mark.exists() and mark.stat().st_mtime_ns >= changed:
        return True
    if _hash(blob, is_git=len(blob.name) == GIT_HASH_LENGTH) != blob.name:
        return False
    with suppress(OSError):  # a read-only cache is compared each time
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    return True


def _hash(path: Path, is_git: bool) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size) if is_git else hashlib.sha256()
    with path.open("rb") as file:
        hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
