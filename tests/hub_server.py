"""A Hub on this machine: the HTTP huggingface_hub's real client speaks, files in memory."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """Commits by their hash, the newest last; tags and branches by name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        sha = hashlib.sha1(json.dumps([len(self.commits), sorted(files)]).encode()).hexdigest()
        self.commits[sha] = files
        self.refs[ref] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class LocalHub:
    """What the server knows, what went over it, and what should go wrong.

    gated: repositories nobody may read. cut_after: connections end after so many bytes of a file,
    once for each file named.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    failing: int | None = None
    cut_after: dict[str, int] = field(default_factory=dict)
    sent: list[tuple[str, int, int]] = field(default_factory=list)  # path, first byte, bytes

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())


@contextmanager
def serve() -> Iterator[LocalHub]:
    hub = LocalHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.hub.failing:
            return self._fail(self.hub.failing, "")
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = info or file
        if match is None:
            return self._fail(404, "")
        name, revision = (match[1], match[3]) if info else (match[1], match[2])
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._fail(401, "RepoNotFound")
        if name in self.hub.gated:
            return self._fail(403, "GatedRepo")
        sha = repository.resolve(revision)
        if sha is None:
            return self._fail(404, "RevisionNotFound")
        files = repository.commits[sha]
        if file:
            return self._send_file(file[3], files, sha)
        if info[2] == "tree":
            tree = [
                {"type": "file", "path": p, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                for p, b in files.items()
            ]
            return self._send(json.dumps(tree).encode())
        siblings = [{"rfilename": p} for p in files]
        about = {"id": name, "modelId": name, "sha": sha, "private": False, "siblings": siblings}
        return self._send(json.dumps(about | {"tags": [], "downloads": 0, "likes": 0}).encode())

    def _send_file(self, path: str, files: dict[str, bytes], sha: str) -> None:
        if path not in files:
            return self._fail(404, "EntryNotFound")
        content = files[path]
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": sha,
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        end = len(content)
        if self.command == "GET" and path in self.hub.cut_after:
            end = start + self.hub.cut_after.pop(path)
        if self.command == "GET":
            self.hub.sent.append((path, start, end - start))
        self._send(content[start:], headers, 206 if wanted else 200, upto=end - start)

    def _send(
        self,
        body: bytes,
        headers: dict[str, str] | None = None,
        status: int = 200,
        upto: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:upto])
        if upto is not None and upto < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def _fail(self, status: int, code: str) -> None:
        self._send(b"{}", {"X-Error-Code": code} if code else None, status)
