"""Whether the files in the Hub's cache are those that the Hub named.

The Hub's client checks how long a file is, and keeps it under its hash: SHA-256 of a large file,
Git's own hash of any other. A link in `snapshots/` leads to that name in the repository's `blobs/`;
behind it may be another link, to a store that all repositories share, where Xet's hash is the name.
So the first link alone names the hash that is compared here. Nothing is deleted: what is damaged
is fetched again, and the client replaces it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GIT_HASH_LENGTH, SHA256_LENGTH = 40, 64
# Beside `blobs/`: an empty file for each blob that was compared, newer than the blob.
VERIFIED = "verified"


def find_damaged(snapshot: Path, patterns: Sequence[str]) -> list[str]:
    """The files of a snapshot that match the patterns and are not what their names say.

    Each is read once, and again only when it was replaced since. A cache without links, as on
    Windows without the right to make them, holds no hashes, and none of its files is named.
    """
    from huggingface_hub.utils import filter_repo_objects

    names = (path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*"))
    wanted = sorted(filter_repo_objects(names, allow_patterns=list(patterns)))
    return [name for name in wanted if not _is_verified(snapshot / name)]


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
    with suppress(OSError):  # a cache that only others may write to is compared each time
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    return True


def _hash(path: Path, is_git: bool) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size) if is_git else hashlib.sha256()
    with path.open("rb") as file:
        hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
