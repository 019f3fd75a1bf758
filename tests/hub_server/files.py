"""A file's bytes.

Read from huggingface_hub's file_download.py (`get_hf_file_metadata`: ETag and X-Repo-Commit;
`http_get`: Range and how an interrupted download is resumed).
"""

from __future__ import annotations

import re

from tests.hub_server.access import find_commit, find_readable
from tests.hub_server.messages import Answer, Request, refuse
from tests.hub_server.objects import git_hash, is_large, sha256
from tests.hub_server.routes import NAME, REVISION, Route


def send_file(request: Request, full: str, revision: str, path: str) -> Answer:
    repository = find_readable(request, full)
    sha = find_commit(repository, revision)
    files = repository.commits[sha]
    if path not in files:
        raise refuse(404, "EntryNotFound")
    if path in request.hub.lost and request.method == "GET":
        raise refuse(500)
    content = files[path]
    etag = sha256(content) if is_large(path) else git_hash(content)
    return send_bytes(request, path, content, {"ETag": f'"{etag}"', "X-Repo-Commit": sha})


def send_bytes(request: Request, path: str, content: bytes, headers: dict[str, str]) -> Answer:
    """Send the range that was asked for, with the faults that the Hub of this test has."""
    hub = request.hub
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    start, last = 0, len(content) - 1
    headers = headers | {"Accept-Ranges": "bytes"}
    if wanted:
        start, last = int(wanted[1]), min(last, int(wanted[2] or last))
        headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
    end = last + 1
    if request.method == "GET":
        if path in hub.cut_after:
            end = start + hub.cut_after.pop(path)
        hub.sent.append((path, start, end - start))
        if hub.damaged.get(path, 0):
            hub.damaged[path] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
    return Answer(206 if wanted else 200, content[start : last + 1], headers, upto=end - start)


ROUTES = [Route("GET HEAD", f"/{NAME}/resolve/{REVISION}/(?P<path>.+)", send_file)]
