"""A file's metadata and bytes: small files from the Hub, large ones by a redirect.

Read from huggingface_hub's file_download.py (`get_hf_file_metadata`: ETag, X-Repo-Commit, and
X-Linked-Etag and X-Linked-Size with a Location that it does not follow to a foreign host).
"""

from __future__ import annotations

from urllib.parse import quote

from tests.support.hub_server.access import find_commit, find_readable
from tests.support.hub_server.messages import Answer, Request, refuse
from tests.support.hub_server.objects import git_hash, is_large
from tests.support.hub_server.routes import NAME, REVISION, Route
from tests.support.hub_server.storage import send_range
from tests.support.hub_server.xet import describe_xet


def send_file(request: Request, full: str, revision: str, path: str) -> Answer:
    repository = find_readable(request, full)
    sha = find_commit(repository, revision)
    files = repository.commits[sha]
    if path not in files:
        raise refuse(404, "EntryNotFound")
    content, digest = files[path], files.digests[path]
    if not is_large(path):
        if path in request.hub.lost and request.method == "GET":
            raise refuse(500)
        answer = send_range(request, path, content)
        answer.headers |= {"ETag": f'"{git_hash(content)}"', "X-Repo-Commit": sha}
        return answer
    api = full if full.startswith(("datasets/", "spaces/")) else f"models/{full}"
    headers = {
        "X-Repo-Commit": sha,
        "X-Linked-Etag": f'"{digest}"',
        "X-Linked-Size": str(len(content)),
        "Location": f"{request.hub.storage_url}/objects/{digest}?filename={quote(path)}",
    }
    headers |= describe_xet(request, path, digest, f"/api/{api}/xet-read-token/{sha}")
    return Answer(302, b"", headers)


ROUTES = [Route("GET HEAD", f"/{NAME}/resolve/{REVISION}/(?P<path>.+)", send_file)]
