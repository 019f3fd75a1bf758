"""The Hub: a repository's files at one commit, and a folder pushed as one commit.

What a model or dataset is called by may be a folder, too; then nothing goes over the network.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import CommitOperation

# What the bridge and the scenes are called that come with earthvlm.
BUNDLED = "bundled"
# What the commit of a folder is called that did not come from the Hub.
LOCAL_REVISION = "local"
# A repository's name as the Hub accepts it; a file or folder may have such a name too.
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
ANSWER_SECONDS = 5
GIT_HASH_LENGTH, SHA256_LENGTH = 40, 64


@dataclass(frozen=True)
class Snapshot:
    """A folder of files, and the commit it holds."""

    folder: Path
    revision: str


def fetch(
    source: str | Path,
    patterns: Sequence[str],
    revision: str | None = None,
    **options: object,
) -> Snapshot:
    """Find a folder, or fetch the files of a Hub repository that match the patterns.

    What was fetched before is not fetched again, and what was interrupted is resumed.
    revision: a branch, tag or commit of the repository; the main branch where it is None.
    options: `token`, `cache_dir`, `local_files_only`, `repo_type` as huggingface_hub takes them.

    Raises ValueError where there is no such repository or revision or it is not open to the
    caller, ConnectionError where the Hub cannot be reached or a file arrives damaged; one sentence
    each.
    """
    if Path(source).is_dir():
        return Snapshot(Path(source), LOCAL_REVISION)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.file_download import repo_folder_name

    wanted = {"repo_id": str(source), "revision": revision}
    if not options.get("local_files_only"):
        asked = {name: options.get(name) for name in ("repo_type", "token")}
        options["local_files_only"] = _is_silent(**wanted, **asked)
    wanted |= {"allow_patterns": list(patterns), **options}
    with _plain_errors(str(source), revision):
        name = repo_folder_name(
            repo_id=str(source), repo_type=options.get("repo_type") or constants.REPO_TYPE_MODEL
        )
        cache = Path(options.get("cache_dir") or constants.HF_HUB_CACHE) / name
        for _ in range(2):  # a second time where something arrived damaged
            began = time.time()
            try:
                folder = Path(snapshot_download(**wanted))
            finally:  # where another file broke it off, too
                damaged = _remove_damaged(cache, began)
            if not damaged:
                return Snapshot(folder, folder.name)
    raise ConnectionError(f"{damaged[0]} of {source} arrived damaged twice: try again later.")


def _remove_damaged(cache: Path, began: float) -> list[str]:
    """Take what arrived damaged since out of a repository's cache, and return its names."""
    damaged = [path for path in (cache / "snapshots").rglob("*") if _is_damaged(path, began)]
    for path in damaged:
        path.resolve().unlink(missing_ok=True)  # of two names, as their content may be one
        path.unlink()
    return [path.name for path in damaged]


def list_files(repo_id: str, patterns: Sequence[str], revision: str | None = None) -> list[str]:
    """The files of a Hub repository that match the patterns, in alphabetical order.

    Raises ValueError or ConnectionError as `fetch` does.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    with _plain_errors(repo_id, revision):
        names = HfApi().list_repo_files(repo_id, revision=revision)
    return sorted(filter_repo_objects(names, allow_patterns=list(patterns)))


def _is_damaged(path: Path, began: float) -> bool:
    """Whether a file of the Hub's cache that arrived since is another than the Hub named.

    Its client checks how long a file is, and keeps it under its hash: SHA-256 of a large file,
    Git's own of any other.
    """
    stored = path.resolve()
    if not path.is_symlink() or stored.stat().st_mtime < began:
        return False
    named = stored.name
    if len(named) not in (GIT_HASH_LENGTH, SHA256_LENGTH):
        return False
    is_git = len(named) == GIT_HASH_LENGTH
    digest = hashlib.sha1(b"blob %d\0" % stored.stat().st_size) if is_git else hashlib.sha256()
    with stored.open("rb") as file:
        hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest() != named


@dataclass(frozen=True)
class Repository:
    """A Hub repository as its page describes it.

    id: its current name. revision: the newest commit. is_private: only its owners see it.
    is_gated: readers must have accepted its terms.
    """

    id: str
    revision: str
    is_private: bool
    is_gated: bool


def find_repository(
    repo_id: str, repo_type: str = "model", token: str | None = None
) -> Repository | None:
    """Look up a Hub repository; None where there is none that the caller may see.

    Raises ValueError or ConnectionError as `fetch` does.
    """
    from huggingface_hub import HfApi

    with _plain_errors(repo_id, None):
        return _look_up(HfApi(token=token), repo_id, repo_type)


def find_matching_commit(
    repo_id: str, folder: Path, patterns: Sequence[str], token: str | None = None
) -> str:
    """The newest commit of a Hub repository, whose files that match the patterns are a folder's.

    Compares SHA-256 and downloads nothing. Raises ValueError where the files differ or there is no
    such repository, ConnectionError where the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import filter_repo_objects

    def matching(names: Iterable[str]) -> list[str]:
        return list(filter_repo_objects(names, allow_patterns=list(patterns)))

    api = HfApi(token=token)
    with _plain_errors(repo_id, None):
        revision = api.repo_info(repo_id, timeout=ANSWER_SECONDS).sha
        tree = api.list_repo_tree(repo_id, revision=revision)
        hashes = {file.path: file.lfs for file in tree if isinstance(file, RepoFile)}
    published = {name: hashes[name] and hashes[name].sha256 for name in matching(hashes)}
    local = {}
    for name in matching(path.name for path in folder.iterdir() if path.is_file()):
        with (folder / name).open("rb") as file:
            local[name] = hashlib.file_digest(file, "sha256").hexdigest()
    if not local or local != published:
        raise ValueError(
            f"The Hub repository {repo_id} does not hold the weights in {folder}: upload that "
            f"folder there with `hf upload {repo_id} {folder}`, or name another repository."
        )
    return revision


def check_push(
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | None = None,
) -> None:
    """Find out whether a later push will be allowed; make the repository where there is none.

    Raises ValueError and ConnectionError as `push` does.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _plain_errors(repo_id, None, "write to"):
        repo_id = _prepare_repository(api, repo_id, repo_type, private)
        api.auth_check(repo_id, repo_type=repo_type, write=True)


def push(
    folder: Path,
    repo_id: str,
    patterns: Sequence[str],
    *,
    commit_message: str,
    owned: Sequence[str] | None = None,
    repo_type: str = "model",
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
    before_commit: Callable[[HfApi, str], None] | None = None,
    **options: object,
) -> str:
    """Push a folder's files that match the patterns as one commit, and return its address.

    The repository is made where there is none; one that was renamed is found by its old name.
    Either all of the commit is there, or nothing.
    owned: patterns of the repository's files that earlier pushes of this kind wrote, `patterns`
        where they are not given; those that the folder no longer has are deleted in the same
        commit, and all other files are kept.
    private: True or False to insist on a private or a public repository; None takes an existing
        one as it is, and makes new ones as the Hub does by default.
    before_commit: called with the Hub's client and the repository's current name.
    options: further ones of `HfApi.create_repo`, as `space_sdk`.

    Raises ValueError where the caller may not write there or an existing repository is not
    `private` as asked, ConnectionError where the Hub cannot be reached; one sentence each. Nothing
    is uploaded then.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _plain_errors(repo_id, revision, "write to"):
        repo_id = _prepare_repository(api, repo_id, repo_type, private, **options)
        if before_commit is not None:
            before_commit(api, repo_id)
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        owned = list(patterns if owned is None else owned)
        base = None if create_pr else revision
        commit = api.create_commit(
            repo_id=repo_id,
            operations=_list_operations(api, folder, repo_id, repo_type, base, patterns, owned),
            repo_type=repo_type,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )
    return commit.pr_url or commit.commit_url


def _list_operations(
    api: HfApi,
    folder: Path,
    repo_id: str,
    repo_type: str,
    revision: str | None,
    patterns: Sequence[str],
    owned: Sequence[str],
) -> list[CommitOperation]:
    """What one commit adds and deletes.

    `HfApi.upload_folder` splits a slow upload into several commits where Xet is on, the first of
    which has all deletions: whoever loads the repository meanwhile gets a half of each.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects

    files = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    added = sorted(
        filter_repo_objects(
            files, allow_patterns=list(patterns), ignore_patterns=DEFAULT_IGNORE_PATTERNS
        )
    )
    there = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
    gone = set(filter_repo_objects(there, allow_patterns=list(owned))) - {*added, ".gitattributes"}
    return [
        *(CommitOperationDelete(name) for name in sorted(gone)),
        *(CommitOperationAdd(name, folder / name) for name in added),
    ]


def _prepare_repository(
    api: HfApi, repo_id: str, repo_type: str, private: bool | None, **options: object
) -> str:
    """Make a repository where there is none, and return its current name.

    A repository made by a name that was given up would stand beside the renamed one, and hide it
    from all who still use that name.
    """
    found = _look_up(api, repo_id, repo_type)
    if found is None:
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, **options)
        return repo_id
    if private and not found.is_private:
        raise ValueError(
            f"{found.id} is public on the Hub, and a private repository was asked for, so nothing "
            "was uploaded: make it private in its settings there, or publish it publicly with "
            "--public (--hub_public, private=False)."
        )
    if private is False and found.is_private:
        raise ValueError(
            f"{found.id} is private on the Hub, and a public repository was asked for, so nothing "
            "was uploaded: make it public in its settings there, or leave --public out."
        )
    return found.id


def _look_up(api: HfApi, repo_id: str, repo_type: str) -> Repository | None:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        found = api.repo_info(repo_id, repo_type=repo_type, timeout=ANSWER_SECONDS)
    except GatedRepoError:  # a kind of RepositoryNotFoundError
        raise
    except RepositoryNotFoundError:
        return None
    gated = bool(getattr(found, "gated", False))  # Spaces have no such attribute
    return Repository(found.id, found.sha, bool(found.private), gated)


def _is_silent(token: str | None, **wanted: str | None) -> bool:
    """Whether the Hub takes longer for an answer than people wait; its client would wait on."""
    from httpx2 import TimeoutException
    from huggingface_hub import HfApi

    try:
        HfApi(token=token).repo_info(**wanted, timeout=ANSWER_SECONDS)
    except TimeoutException:
        return True
    except Exception:
        return False  # whatever it is, the download will say it
    return False


@contextmanager
def _plain_errors(name: str, revision: str | None, action: str = "read") -> Iterator[None]:
    """The Hub's errors as one sentence each, none of which holds a token."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except HFValidationError:
        raise ValueError(f"{name} is neither a folder nor the id of a Hub repository.") from None
    except LocalTokenNotFoundError:
        raise ValueError(f"{name} needs a token: log in with `hf auth login`.") from None
    except GatedRepoError:
        raise ValueError(
            f"The Hub repository {name} is gated: accept its terms there, then log in with "
            "`hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"There is no folder {name}, and no Hub repository of that name that you may read."
        ) from None
    except RevisionNotFoundError:
        raise ValueError(f"The Hub repository {name} has no revision {revision}.") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HTTPError, RuntimeError) as error:
        status, reason = _find_answer(error)
        if status in (401, 403):
            raise ValueError(
                f"The Hub does not let you {action} {name}: log in with `hf auth login`, with a "
                "token that may."
            ) from None
        if isinstance(error, RuntimeError) and error.__cause__ is None:
            raise
        hub = (
            f"There is no folder {name}, and the Hub, which may have a repository of that name,"
            if action == "read"
            else f"The Hub, where {name} would go,"
        )
        ended = f"answered {status}: try again later" if status else f"cannot be reached ({reason})"
        raise ConnectionError(f"{hub} {ended}.") from error


def _find_answer(error: BaseException) -> tuple[int | None, str]:
    """The status that the Hub answered with, if it did, and what kind of error is at the bottom.

    The client wraps what happened: a large file that could not be sent comes as a RuntimeError.
    """
    while True:
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code, type(error).__name__
        if error.__cause__ is None:
            return None, type(error).__name__
        error = error.__cause__
