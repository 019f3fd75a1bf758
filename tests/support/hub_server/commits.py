"""A push: which files are large, where to upload them, and the commit.

Read from huggingface_hub's _commit_api.py (`_fetch_upload_modes`, `_prepare_commit_payload`),
lfs.py (`post_lfs_batch_info`, `lfs_upload`) and hf_api.py (`create_commit`).
"""

from __future__ import annotations

import base64
import json

from tests.support.hub_server.access import find_commit, find_writable
from tests.support.hub_server.messages import Answer, Request, refuse
from tests.support.hub_server.objects import git_hash, is_large, sha256
from tests.support.hub_server.routes import API, NAME, Route
from tests.support.hub_server.state import full_name
from tests.support.hub_server.storage import READ_TOKEN


def sort_files(request: Request, kind: str, name: str, revision: str) -> Answer:
    """Report each file's upload mode, and the hash that it has at this revision."""
    repository = find_writable(request, full_name(kind, name))
    existing = repository.commits[find_commit(repository, revision)]
    files = []
    for file in request.json["files"]:
        path = file["path"]
        answer = {"path": path, "uploadMode": "lfs" if is_large(path) else "regular"}
        answer |= {"shouldIgnore": False}
        if path in existing:
            digest = existing.digests[path]
            answer["oid"] = digest if is_large(path) else git_hash(existing[path])
        files.append(answer)
    return Answer(content={"files": files})


def offer_uploads(request: Request, full: str) -> Answer:
    """Give an upload address for each large file that the repository does not hold yet."""
    repository = find_writable(request, full)
    held = {digest for files in repository.commits.values() for digest in files.digests.values()}
    objects = []
    for wanted in request.json["objects"]:
        href = f"{request.hub.url}/objects/{wanted['oid']}"
        is_known = wanted["oid"] in held
        objects.append(wanted if is_known else wanted | {"actions": {"upload": {"href": href}}})
    return Answer(content={"transfer": "basic", "objects": objects})


def store_object(request: Request, digest: str) -> Answer:
    """Store an uploaded large file. The address itself is the permission, like a signed URL."""
    if sha256(request.body) != digest:
        raise refuse(400)
    request.hub.objects.store(request.body)
    return Answer()


def commit(request: Request, kind: str, name: str, revision: str) -> Answer:
    """Commit the request's operations; none of them if a large file has not arrived."""
    hub, full = request.hub, full_name(kind, name)
    repository = find_writable(request, full)
    sha = find_commit(repository, revision)
    digests = dict(repository.commits[sha].digests)
    for line in request.body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "file":
            digests[value["path"]] = hub.objects.store(base64.b64decode(value["content"]))
        elif entry["key"] == "lfsFile":
            if value["oid"] not in hub.objects and not hub.xet.restore(
                value["oid"], hub.storage_url, READ_TOKEN
            ):
                raise refuse(400)
            digests[value["path"]] = value["oid"]
        elif entry["key"] == "deletedFile":
            del digests[value["path"]]
    as_pr = request.query.get("create_pr") == "1"
    ref = f"refs/pr/{len(repository.refs)}" if as_pr else revision
    sha = repository.commit_stored(digests, ref)
    done = {"commitUrl": f"{hub.url}/{full}/commit/{sha}", "commitOid": sha}
    if as_pr:
        done["pullRequestUrl"] = f"{hub.url}/{full}/discussions/1"
    return Answer(content=done)


ROUTES = [
    Route("PUT", "/objects/(?P<digest>[0-9a-f]{64})", store_object),
    Route("POST", f"/{NAME}\\.git/info/lfs/objects/batch", offer_uploads),
    Route("POST", f"{API}/preupload/(?P<revision>.+)", sort_files),
    Route("POST", f"{API}/commit/(?P<revision>.+)", commit),
]
