"""What is known of a repository: its commit, its files and their sizes.

Read from huggingface_hub's hf_api.py (`model_info`, `dataset_info`, `space_info`: ModelInfo's
fields; `list_repo_tree`: RepoFile's fields).
"""

from __future__ import annotations

from tests.hub_server.access import find_commit, find_readable
from tests.hub_server.messages import Answer, Request, refuse
from tests.hub_server.objects import git_hash, is_large, sha256
from tests.hub_server.routes import API, REVISION, Route
from tests.hub_server.state import full_name


def describe_repository(request: Request, kind: str, name: str, revision: str = "main") -> Answer:
    repository = find_readable(request, full_name(kind, name))
    sha = find_commit(repository, revision)
    siblings = [{"rfilename": path} for path in repository.commits[sha]]
    info = {"id": name, "modelId": name, "sha": sha, "private": repository.private}
    info |= {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
    return Answer(content=info)


def list_tree(
    request: Request, kind: str, name: str, revision: str, folder: str | None = None
) -> Answer:
    repository = find_readable(request, full_name(kind, name))
    files = repository.commits[find_commit(repository, revision)]
    prefix = f"{folder}/" if folder else ""
    tree = [describe_file(request, p, b) for p, b in files.items() if p.startswith(prefix)]
    if prefix and not tree:
        raise refuse(404, "EntryNotFound")
    return Answer(content=tree)


def describe_file(request: Request, path: str, content: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if is_large(path):
        digest = sha256(content)
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        if xet_hash := request.hub.xet.add(path, digest):
            entry["xetHash"] = xet_hash
    return entry


ROUTES = [
    Route("GET HEAD", API, describe_repository),
    Route("GET HEAD", f"{API}/revision/{REVISION}", describe_repository),
    Route("GET HEAD", f"{API}/tree/{REVISION}(?:/(?P<folder>.+))?", list_tree),
]
