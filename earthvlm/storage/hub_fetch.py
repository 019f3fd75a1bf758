"""Find the files of a Hub repository in the cache, or let another process fetch them.

The Hub's client has no limit for all that it does, so here are two: one for each answer of the Hub,
and one for the next byte of its files.
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

# How long to wait for the Hub to say what it holds; twice at most, and 10 s together. The client's
# own settings for slow networks hold here too.
ANSWER_SECONDS = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 4.5)
# How long to wait for the next byte of files that are being fetched.
STALL_SECONDS = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or 30)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class FileRequest:
    """Which files of which repository are wanted, and where they are kept."""

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


def find_newest(wanted: FileRequest) -> Path | None:
    """The cached files of the revision's newest commit, or of an older one where the Hub is away.

    None where the Hub has files that the cache lacks.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    try:
        cached = find_cached(wanted)
    except LocalEntryNotFoundError:
        cached = None
    if cached and cached.name == wanted.revision and _is_complete(wanted, cached):
        return cached
    try:
        api = HfApi(token=wanted.token)
        limit = 2 * ANSWER_SECONDS  # ends the thread, after `wait_for` has given it up
        about = wait_for(lambda: api.repo_info(**wanted.repository, timeout=limit))
    except RevisionNotFoundError:
        raise
    except (HTTPError, TimeoutError):
        if cached is None:
            raise
        return cached
    return cached if cached and cached.name == about.sha and _is_complete(wanted, cached) else None


def find_cached(wanted: FileRequest) -> Path:
    """The files in the cache; LocalEntryNotFoundError where one is known to be missing."""
    from huggingface_hub import snapshot_download

    options = {"cache_dir": wanted.cache_dir, "allow_patterns": list(wanted.patterns)}
    return Path(snapshot_download(**wanted.repository, **options, local_files_only=True))


def _is_complete(wanted: FileRequest, cached: Path) -> bool:
    """Whether the cache holds the list of the commit's files, so that none can be missing."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    repository = wanted.repository | {"revision": cached.name}
    try:
        get_cached_repo_tree(**repository, cache_dir=wanted.cache_dir)
    except CachedRepoTreeNotFoundError:
        return False
    return True


def download(wanted: FileRequest, damaged: Sequence[str] = ()) -> Path:
    """Fetch what the cache lacks, or replace damaged files, in a process that can be given up."""
    from filelock import FileLock
    from huggingface_hub import constants

    folder = Path(wanted.cache_dir) / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    name = wanted.repo_id.replace("/", "--")
    patterns = [glob.escape(name) for name in damaged] or list(wanted.patterns)
    asked = wanted.repository | {
        "token": wanted.token,
        "cache_dir": wanted.cache_dir,
        "allow_patterns": patterns,
        "force_download": bool(damaged),
        "answer_seconds": ANSWER_SECONDS,
        "stall_seconds": STALL_SECONDS,
    }
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "HF_HUB_DISABLE_XET": str(int(constants.HF_HUB_DISABLE_XET)),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    # Another process that fetches the same would wait for the client's own lock, without a byte.
    with FileLock(folder / f"{name}.earthvlm.lock"):
        result = _run([sys.executable, "-m", "earthvlm.storage.hub_download"], asked, environment)
    if "folder" in result:
        return Path(result["folder"])
    kinds = {"ValueError": ValueError, "ConnectionError": ConnectionError, "OSError": OSError}
    raise kinds[result["error"]](result["sentence"])


def _run(command: list[str], asked: dict[str, Any], environment: dict[str, str]) -> dict[str, str]:
    """Ask a program by one line of JSON and return its answer; it ends when its input does."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **options) as process:
        try:
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            answer = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    if not answer:
        raise RuntimeError(f"{command[-1]} ended with status {process.returncode}.")
    return json.loads(answer)


def wait_for(ask: Callable[[], Answer]) -> Answer:
    """Return what a function returns; TimeoutError where it takes longer than people wait.

    The client's own limits are for each step alone: to find a server, to reach it, each read.
    """
    done: list[Answer | BaseException] = []

    def run() -> None:
        try:
            done.append(ask())
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not done:
        raise TimeoutError
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]
