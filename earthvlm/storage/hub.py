"""Download a Hub repository's files at one commit, and push a folder as one commit.

The name of a model or dataset may also be a local folder; then nothing goes over the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthvlm.storage import hub_fetch
from earthvlm.storage.files import sha256, suggest_folder
from earthvlm.storage.hub_errors import plain_errors
from earthvlm.storage.hub_fetch import FileRequest, download, find_cached, find_newest, wait_for
from earthvlm.storage.hub_integrity import find_damaged

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import CommitOperation

# The name of the bridge and of the scenes that come with earthvlm.
BUNDLED = "bundled"
# The revision of a folder that did not come from the Hub.
LOCAL_REVISION = "local"
# A repository's name as the Hub accepts it; a file or folder may have such a name too.
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Snapshot:
    """A folder of files, and the commit that it holds."""

    folder: Path
    revision: str


def check_source(source: str | Path) -> None:
    """Raise FileNotFoundError for what is neither a folder nor a name like a repository's."""
    if not Path(source).is_dir() and "/" not in Path(source).as_posix():
        near = suggest_folder(source)
        raise FileNotFoundError(
            f"There is no folder {source}{near}"
            if near
            else f"There is no folder {source}: check its path; a repository on the Hub is named "
            "OWNER/NAME."
        )


def fetch(
    source: str | Path,
    patterns: Sequence[str],
    revision: str | None = None,
    *,
    repo_type: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Snapshot:
    """Find a folder, or download the files of a Hub repository that match the patterns.

    Skips files that are already in the cache, and uses those where the Hub cannot be reached.
    Downloads damaged files again, and never returns them.

    Args:
        source: a folder or the id of a Hub repository.
        patterns: shell patterns of file names.
        revision: a branch, tag or commit of the repository; None takes the main branch.
        repo_type: as huggingface_hub takes it, like the three below.
        token: see repo_type.
        cache_dir: see repo_type.
        local_files_only: see repo_type.

    Raises:
        ValueError: the repository or revision does not exist, or the caller may not read it.
        ConnectionError: the Hub does not answer within `hub_fetch.ANSWER_SECONDS`, a download
            receives nothing for `hub_fetch.STALL_SECONDS`, or a file arrives damaged twice.
    """
    if Path(source).is_dir():
        return Snapshot(Path(source), LOCAL_REVISION)
    from huggingface_hub import constants

    cache = str(Path(cache_dir or constants.HF_HUB_CACHE).expanduser().absolute())
    request = FileRequest(str(source), tuple(patterns), revision, repo_type, token, cache)
    is_offline = local_files_only or constants.is_offline_mode()
    with plain_errors(request.repo_id, revision):
        folder = find_cached(request) if is_offline else find_newest(request)
    folder = folder or download(request)
    damaged = find_damaged(folder, patterns)
    if damaged and is_offline:
        raise ConnectionError(f"{damaged[0]} of {source} is damaged: download it again.")
    if damaged:
        folder = download(request, damaged)
        if damaged := find_damaged(folder, patterns):
            raise ConnectionError(
                f"{damaged[0]} of {source} arrived damaged twice: try again later."
            )
    return Snapshot(folder, folder.name)


def list_files(repo_id: str, patterns: Sequence[str], revision: str | None = None) -> list[str]:
    """List the files of a Hub repository that match the patterns, in alphabetical order.

    Raises ValueError or ConnectionError as `fetch` does.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    with plain_errors(repo_id, revision):
        names = wait_for(lambda: HfApi().list_repo_files(repo_id, revision=revision))
    return sorted(filter_repo_objects(names, allow_patterns=list(patterns)))


@dataclass(frozen=True)
class Repository:
    """A Hub repository.

    Attributes:
        id: its current name.
        revision: the newest commit.
        is_private: only its owners may read it.
        is_gated: only users who accepted its terms may read it.
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

    with plain_errors(repo_id, None):
        return _look_up(HfApi(token=token), repo_id, repo_type)


def find_matching_commit(
    repo_id: str, folder: Path, patterns: Sequence[str], token: str | None = None
) -> str:
    """Return a Hub repository's newest commit, which must hold the same files as a folder.

    Compares the files that match the patterns by SHA-256, and downloads nothing. Raises ValueError
    where they differ or there is no such repository, ConnectionError where the Hub cannot be
    reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import filter_repo_objects

    def matching(names: Iterable[str]) -> list[str]:
        return list(filter_repo_objects(names, allow_patterns=list(patterns)))

    api = HfApi(token=token)
    with plain_errors(repo_id, None):
        revision = api.repo_info(repo_id, timeout=hub_fetch.ANSWER_SECONDS).sha or ""
        tree = api.list_repo_tree(repo_id, revision=revision)
        files = [file for file in tree if isinstance(file, RepoFile)]
    hashes = {file.path: file.lfs.sha256 if file.lfs else None for file in files}
    published = {name: hashes[name] for name in matching(hashes)}
    local_names = matching(path.name for path in folder.iterdir() if path.is_file())
    local = {name: sha256(folder / name) for name in local_names}
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
    """Check that a later push will be allowed; create the repository where there is none.

    Raises ValueError and ConnectionError as `push` does.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with plain_errors(repo_id, None, "write to"):
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
    **options: Any,
) -> str:
    """Push a folder's files that match the patterns as one commit, and return its URL.

    Creates the repository where there is none, and finds a renamed one by its old name. A failed
    push changes nothing.

    Args:
        folder: holds the files.
        repo_id: the repository's name.
        patterns: shell patterns of the files to push.
        commit_message: the first line of the commit.
        owned: patterns of files that earlier pushes wrote (default: `patterns`). The commit deletes
            those that the folder no longer has, and keeps all other files of the repository.
        repo_type: "model", "dataset" or "space".
        private: True or False requires a private or a public repository; None accepts either.
        revision: the branch (default: main).
        create_pr: commit to a new pull request.
        token: of the Hub; None takes the one of `hf auth login`.
        before_commit: called with the Hub's client and the repository's current name.
        options: further arguments of `HfApi.create_repo`, such as `space_sdk`.

    Raises:
        ValueError: the caller may not write there, or an existing repository is not `private` as
            asked.
        ConnectionError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with plain_errors(repo_id, revision, "write to"):
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
    """List what one commit adds and deletes.

    `HfApi.upload_folder` splits a slow upload into several commits where Xet is on, the first of
    which has all deletions: a download in between would mix old and new files.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects

    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    added = sorted(
        filter_repo_objects(
            files, allow_patterns=list(patterns), ignore_patterns=DEFAULT_IGNORE_PATTERNS
        )
    )
    existing = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
    deleted = set(filter_repo_objects(existing, allow_patterns=list(owned)))
    deleted -= {*added, ".gitattributes"}
    return [
        *(CommitOperationDelete(name) for name in sorted(deleted)),
        *(CommitOperationAdd(name, folder / name) for name in added),
    ]


def _prepare_repository(
    api: HfApi, repo_id: str, repo_type: str, private: bool | None, **options: Any
) -> str:
    """Create a repository where there is none, and return its current name.

    Looks for a renamed repository first: a new one under its old name would hide it from everyone
    who still uses that name.
    """
    found = _look_up(api, repo_id, repo_type)
    if found is None:
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, **options)
        return repo_id
    if private and not found.is_private:
        raise ValueError(
            f"{found.id} is public on the Hub, and a private repository was asked for, so nothing "
            "was uploaded: make it private in its settings there, or publish it publicly with "
            "--public (--no-hub_private_repo, private=False)."
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
        found = api.repo_info(repo_id, repo_type=repo_type, timeout=hub_fetch.ANSWER_SECONDS)
    except GatedRepoError:  # a kind of RepositoryNotFoundError
        raise
    except RepositoryNotFoundError:
        return None
    gated = bool(getattr(found, "gated", False))  # Spaces have no such attribute
    return Repository(found.id, found.sha or "", bool(found.private), gated)
