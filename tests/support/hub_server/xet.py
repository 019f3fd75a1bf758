"""Xet metadata of files, and tokens for Xet's storage.

Read from huggingface_hub's utils/_xet.py (`parse_xet_file_data_from_response`,
`parse_xet_connection_info_from_headers`, `xet_connection_info_refresh_url`) and
_upload_pipeline.py (the write token's JSON, which hf_xet itself asks for).
"""

from __future__ import annotations

import time

from tests.support.hub_server.access import find_commit, find_readable, find_writable
from tests.support.hub_server.messages import Answer, Request
from tests.support.hub_server.routes import API, REVISION, Route
from tests.support.hub_server.state import full_name
from tests.support.hub_server.storage import READ_TOKEN, WRITE_TOKEN
from tests.support.hub_server.xet_store import TOKEN_SECONDS


def describe_xet(request: Request, path: str, digest: str, token_path: str) -> dict[str, str]:
    """The headers of a file that is stored by Xet."""
    xet_hash = request.hub.xet.add(path, digest)
    if xet_hash is None:
        return {}
    return {"X-Xet-Hash": xet_hash, "Link": f'<{request.hub.url}{token_path}>; rel="xet-auth"'}


def give_read_token(request: Request, kind: str, name: str, revision: str) -> Answer:
    repository = find_readable(request, full_name(kind, name))
    find_commit(repository, revision)
    return _give_token(request, READ_TOKEN)


def give_write_token(request: Request, kind: str, name: str, revision: str) -> Answer:
    find_writable(request, full_name(kind, name))
    return _give_token(request, WRITE_TOKEN)


def _give_token(request: Request, token: str) -> Answer:
    url, expires = request.hub.storage_url, int(time.time()) + TOKEN_SECONDS
    return Answer(
        content={"casUrl": url, "accessToken": token, "exp": expires},
        headers={
            "X-Xet-Cas-Url": url,
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(expires),
        },
    )


ROUTES = [
    Route("GET", f"{API}/xet-read-token/{REVISION}", give_read_token),
    Route("GET", f"{API}/xet-write-token/{REVISION}", give_write_token),
]
