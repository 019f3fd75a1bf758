"""Find the files of a Hub repository in the cache, or download them in another process.

The Hub's client does not limit how long a whole call takes, so this module sets two time limits:
one for each answer of the Hub, and one for the next byte of its files.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ASKING = "earthvlm-asks-the-hub"  # the name of threads that ask, and that may be given up
# How long to wait for the Hub's metadata; at most twice, so 10 s in all. The client's own
# variables for slow networks change these limits, too.
ANSWER_SECONDS = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 4.5)
# How long to wait for the next byte of a download.
STALL_SECONDS = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or 30)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class FileRequest:
    """Which files of which repository to download, and the cache folder."""

    repo_id: str
    patterns: tuple[str, ...]
    revision: str | None
    repo_type: str | None
    token: str | bool | None
    cache_dir: str

    @property
    def repository(self) -> dict[str, Any]:
        """The arguments by which huggingface_hub names a repository."""
        return {"repo_id": self.repo_id, "repo_type": self.repo_type, "revision": self.revision}


def find_newest(request: FileRequest) -> Path | None:
    """Find the cached files of the revision's newest commit, or None where the cache lacks some.

    Returns those of an older commit where the Hub does not answer.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    try:
        cached = find_cached(request)
    except LocalEntryNotFoundError:
        cached = None
    if cached and cached.name == request.revision and _is_complete(request, cached):
        return cached
    try:
        api = HfApi(token=request.token)
        limit = 2 * ANSWER_SECONDS  # ends the thread after `wait_for` gave up
        about = wait_for(lambda: api.repo_info(**request.repository, timeout=limit))
    except RevisionNotFoundError:
        raise
    except (HTTPError, TimeoutError):
        if cached is None:
            raise
        return cached
    return cached if cached and cached.name == about.sha and _is_complete(request, cached) else None


def find_cached(request: FileRequest) -> Path:
    """Find the files in the cache; LocalEntryNotFoundError where one is known to be missing."""
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        request.repo_id,
        repo_type=request.repo_type,
        revision=request.revision,
        cache_dir=request.cache_dir,
        allow_patterns=list(request.patterns),
        local_files_only=True,
    )
    return Path(folder)


def _is_complete(request: FileRequest, cached: Path) -> bool:
    """Whether the cache holds the list of the commit's files, so that none can be missing."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    repository = request.repository | {"revision": cached.name}
    try:
        get_cached_repo_tree(**repository, cache_dir=request.cache_dir)
    except CachedRepoTreeNotFoundError:
        return False
    return True


def download(request: FileRequest, damaged: Sequence[str] = ()) -> Path:
    """Download what the cache lacks, or damaged files again, in a process that can be killed."""
    from filelock import FileLock
    from huggingface_hub import constants

    folder = Path(request.cache_dir) / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    name = request.repo_id.replace("/", "--")
    patterns = [glob.escape(name) for name in damaged] or list(request.patterns)
    arguments = request.repository | {
        "token": request.token,
        "cache_dir": request.cache_dir,
        "allow_patterns": patterns,
        "force_download": bool(damaged),
        "answer_seconds": ANSWER_SECONDS,
        "stall_seconds": STALL_SECONDS,
    }
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "HF_HUB_DISABLE_XET": str(int(constants.HF_HUB_DISABLE_XET)),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    # A second process would wait for the client's own lock and be taken for a stalled download.
    with FileLock(folder / f"{name}.earthvlm.lock"):
        result = _run(
            [sys.executable, "-m", "earthvlm.storage.hub_download"], arguments, environment
        )
    if "folder" in result:
        return Path(result["folder"])
    kinds = {"ValueError": ValueError, "ConnectionError": ConnectionError, "OSError": OSError}
    raise kinds[result["error"]](result["sentence"])


def _run(
    command: list[str], request: dict[str, Any], environment: dict[str, str]
) -> dict[str, str]:
    """Send a program one line of JSON and return its answer; it ends when its input does."""
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            answer = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    if not answer:
        raise RuntimeError(f"{command[-1]} ended with status {process.returncode}.")
    return json.loads(answer)


def wait_for(ask: Callable[[], Answer]) -> Answer:
    """Return what a function returns; TimeoutError after `ANSWER_SECONDS`.

    The client's own time limits hold for each step alone: name resolution, connection, each read.
    """
    done: list[Answer | BaseException] = []

    def run() -> None:
        try:
            done.append(ask())
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=run, daemon=True, name=ASKING)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not done:
        raise TimeoutError
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]
