"""The hosts that hold the Hub's large files: a CDN for plain HTTP, and Xet's storage.

They are another host than the Hub, as in reality: "localhost" and another port, so the client
takes them for foreign and keeps its token to itself. The addresses are signed in reality, and a
token together with a signature is refused, as here.

Read from huggingface_hub's file_download.py (`_get_metadata_or_catch_error`: the redirect and its
token; `http_get`: ranges; `xet_get`), and from what hf_xet 1.8 asks of `casUrl`:
/v1/reconstructions/HASH names the ranges of xorbs that make up a file, and their addresses;
/v1/xorbs and /v1/shards take what is uploaded, where no grants for uploads to elsewhere are given.
"""

from __future__ import annotations

import re

from tests.support.hub_server.messages import Answer, Request, refuse
from tests.support.hub_server.routes import Route

READ_TOKEN = "xet_token_that_may_read"
WRITE_TOKEN = "xet_token_that_may_write"


def send_object(request: Request, digest: str) -> Answer:
    """A large file from the CDN."""
    if "Authorization" in request.headers:
        raise refuse(400)
    if request.query["filename"] in request.hub.lost:
        raise refuse(500)
    return send_range(request, request.query["filename"], request.hub.objects.read(digest))


def describe_reconstruction(request: Request, own: str | None, xet_hash: str) -> Answer:
    """List the chunks of xorbs that make up a file; all of them, whatever range was requested."""
    _check_token(request, READ_TOKEN)
    store = request.hub.xet
    if store.names.get(xet_hash) in request.hub.lost:
        raise refuse(404)
    terms, ranges = [], {}
    for term in store.files[xet_hash].terms:
        chunks = {"start": term.first_chunk, "end": term.end_chunk}
        terms.append({"hash": term.xorb, "unpacked_length": term.length, "range": chunks})
        first, last = store.find_bytes(term)
        ranges.setdefault(term.xorb, []).append(
            {
                "range": chunks,
                "url": f"{request.hub.storage_url}{own or ''}/xorbs/{xet_hash}/{term.xorb}",
                "url_range": {"start": first, "end": last},
            }
        )
    return Answer(content={"offset_into_first_range": 0, "terms": terms, "fetch_info": ranges})


def send_xorb(request: Request, own: str | None, xet_hash: str, xorb: str) -> Answer:
    if "Authorization" in request.headers:
        raise refuse(400)
    store = request.hub.xet
    name = None if own else store.names[xet_hash]
    return send_range(request, name, store.read_xorb(xorb))


def store_xorb(request: Request, xorb: str) -> Answer:
    _check_token(request, WRITE_TOKEN)
    request.hub.xet.add_xorb(xorb, request.body)
    return Answer(content={"was_inserted": True})


def store_shard(request: Request) -> Answer:
    _check_token(request, WRITE_TOKEN)
    request.hub.xet.add_shard(request.body)
    return Answer(content={"result": 1})


def _check_token(request: Request, token: str) -> None:
    if request.headers.get("Authorization") != f"Bearer {token}":
        raise refuse(401)


def send_range(request: Request, path: str | None, content: bytes) -> Answer:
    """Send the requested range, with the faults that the test has set."""
    hub, headers = request.hub, {"Accept-Ranges": "bytes"}
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    start, last = 0, len(content) - 1
    if wanted:
        start, last = int(wanted[1]), min(last, int(wanted[2] or last))
        headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
    end = last + 1
    if request.method == "GET" and path is not None:
        if path in hub.cut_after:
            end = start + hub.cut_after.pop(path)
        hub.sent.append((path, start, end - start))
        if hub.damaged.get(path, 0):
            hub.damaged[path] -= 1
            content = bytes([*content[:last], content[last] ^ 1, *content[last + 1 :]])
    return Answer(206 if wanted else 200, content[start : last + 1], headers, upto=end - start)


OWN = "(?P<own>/own)?"  # what this server itself asks for, to restore an upload
HASH = "[0-9a-f]{64}"
ROUTES = [
    Route("GET HEAD", f"/objects/(?P<digest>{HASH})", send_object),
    Route("GET", f"{OWN}/v1/reconstructions/(?P<xet_hash>{HASH})", describe_reconstruction),
    Route("GET", f"{OWN}/xorbs/(?P<xet_hash>{HASH})/(?P<xorb>{HASH})", send_xorb),
    Route("POST", f"/v1/xorbs/default/(?P<xorb>{HASH})", store_xorb),
    Route("POST", "/v1/shards", store_shard),
]
