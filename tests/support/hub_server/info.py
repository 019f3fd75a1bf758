"""Metadata of a repository: its commit, its files and their sizes.

Read from huggingface_hub's hf_api.py (`model_info`, `dataset_info`, `space_info`: ModelInfo's
fields; `list_repo_tree`: RepoFile's fields; `get_paths_info`; `list_repo_refs`) and
utils/_pagination.py (`paginate`: the next page's address in a Link header).
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode

from tests.support.hub_server.access import find_commit, find_readable, find_visible
from tests.support.hub_server.messages import Answer, Request, refuse
from tests.support.hub_server.objects import git_hash, is_large, sha256
from tests.support.hub_server.routes import API, REVISION, Route
from tests.support.hub_server.state import full_name


def describe_repository(request: Request, kind: str, name: str, revision: str = "main") -> Answer:
    repository = find_visible(request, full_name(kind, name))
    sha = find_commit(repository, revision)
    siblings = [{"rfilename": path} for path in repository.commits[sha]]
    info = {"id": name, "modelId": name, "sha": sha, "private": repository.private}
    if kind != "spaces":
        info["gated"] = "manual" if full_name(kind, name) in request.hub.gated else False
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
    start = int(request.query.get("cursor", 0))
    answer = Answer(content=tree[start : start + request.hub.page_size])
    if start + request.hub.page_size < len(tree):
        query = urlencode(request.query | {"cursor": start + request.hub.page_size})
        answer.headers["Link"] = f'<{request.hub.url}{request.path}?{query}>; rel="next"'
    return answer


def describe_paths(request: Request, kind: str, name: str, revision: str) -> Answer:
    """The files of these paths that exist."""
    repository = find_readable(request, full_name(kind, name))
    files = repository.commits[find_commit(repository, revision)]
    wanted = parse_qs(request.body.decode())["paths"]
    found = [describe_file(request, path, files[path]) for path in wanted if path in files]
    return Answer(content=found)


def list_refs(request: Request, kind: str, name: str) -> Answer:
    repository = find_readable(request, full_name(kind, name))
    refs = [
        {"name": ref.removeprefix("refs/"), "ref": f"refs/heads/{ref}", "targetCommit": sha}
        for ref, sha in repository.refs.items()
        if not ref.startswith("refs/pr/")
    ]
    return Answer(content={"branches": refs, "converts": [], "tags": []})


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
    Route("GET", f"{API}/refs", list_refs),
    Route("POST", f"{API}/paths-info/{REVISION}", describe_paths),
    Route("GET HEAD", f"{API}/revision/{REVISION}", describe_repository),
    Route("GET HEAD", f"{API}/tree/{REVISION}(?:/(?P<folder>.+))?", list_tree),
]
