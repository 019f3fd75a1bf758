"""A STAC API and its files on this machine, searched by place, time and cloud."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
COLLECTION = "sentinel-2-l2a"


class StacServer(ThreadingHTTPServer):
    """Serves the items that lie in a folder as NAME.json, and all of its files by ranges.

    Attributes:
        bytes_sent: of bodies.
        requests: "METHOD path" of each request.
        failing: how many of the next requests are answered with status 503.
        delay: seconds before each answer.
        most_at_once: the largest number of requests that were answered at the same time.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.bytes_sent, self.failing = folder, 0, 0
        self.delay, self.most_at_once, self._at_once = 0.0, 0, 0
        self.lock = threading.Lock()
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @contextmanager
    def count(self, request: str) -> Iterator[None]:
        """Record a request while it is answered."""
        with self.lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            time.sleep(self.delay)
            yield
        finally:
            with self.lock:
                self._at_once -= 1

    def items(self) -> list[dict]:
        """Read the items, with a link to themselves."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            item = json.loads(path.read_text())
            link = {
                "rel": "self",
                "href": f"{self.address}/{path.name}",
                "type": "application/json",
            }
            for asset in item["assets"].values():
                asset["href"] = f"{self.address}/{asset['href'].removeprefix('./')}"
            found.append({**item, "collection": COLLECTION, "links": [link]})
        return found

    def search(self, query: dict) -> dict:
        """Answer a search as the STAC API's item search does, with CQL2 or the query extension."""
        west, south, east, north = query.get("bbox") or (-180, -90, 180, 90)
        start, _, end = str(query.get("datetime") or "../..").partition("/")
        cloud = _largest_cloud(query)

        def fits(item: dict) -> bool:
            w, s, e, n = item["bbox"]
            day = item["properties"]["datetime"]
            return (
                not (w > east or e < west or s > north or n < south)
                and (start == ".." or day >= start)
                and (end in ("", "..") or day <= end)
                and item["properties"].get("eo:cloud_cover", 0) <= cloud
            )

        found = [item for item in self.items() if fits(item)]
        return {"type": "FeatureCollection", "features": found[: query.get("limit", 10)]}


def _largest_cloud(query: dict) -> float:
    condition = (query.get("query") or {}).get("eo:cloud_cover") or {}
    return float(condition.get("lte", condition.get("lt", 100)))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StacServer

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send_json(self.server.search(query))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with self.server.count(f"{self.command} {self.path}"):
            self._answer()

    def _answer(self) -> None:
        if self.server.failing:
            self.server.failing -= 1
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        name = unquote(urlsplit(self.path).path).lstrip("/")
        path = self.server.folder / name
        if name == "":
            self._send_json(_landing_page(self.server.address))
        elif path.is_file():
            self._send_file(path)
        else:
            self.send_error(404)

    def _send_json(self, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/geo+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_file(self, path: Path) -> None:
        size = path.stat().st_size
        first, last = 0, size - 1
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked:
            first = int(asked[1])
            last = min(int(asked[2]) if asked[2] else last, last)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if self.command == "GET":
            with path.open("rb") as file:
                file.seek(first)
                data = file.read(last - first + 1)
            with self.server.lock:
                self.server.bytes_sent += len(data)
            with contextlib.suppress(ConnectionError):  # the client has seen enough
                self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


def _landing_page(address: str) -> dict:
    conformance = "https://api.stacspec.org/v1.0.0"
    return {
        "type": "Catalog",
        "id": "made",
        "stac_version": "1.0.0",
        "description": "Made scenes.",
        "conformsTo": [
            f"{conformance}/{name}" for name in ("core", "item-search", "item-search#query")
        ],
        "links": [
            {"rel": "self", "href": address},
            {"rel": "root", "href": address},
            {"rel": "search", "href": f"{address}/search", "method": "POST"},
        ],
    }


@contextmanager
def serve_stac(folder: Path) -> Iterator[StacServer]:
    """Serve a folder until the context ends."""
    server = StacServer(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
