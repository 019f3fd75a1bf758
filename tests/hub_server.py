"""A Hub on this machine: the HTTP that huggingface_hub's real client speaks."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.hub_pushes import (
    LARGE_FILES,
    check_card,
    commit,
    create_branch,
    create_repository,
    full_name,
    offer_uploads,
    set_variable,
    sort_files,
)
from tests.hub_store import Files, LocalHub, Objects

TOKEN = "hf_the_token_that_may_write"
NAME = r"((?:datasets/|spaces/)?[^/]+/[^/]+)"
API_NAME = r"/api/(models|datasets|spaces)/([^/]+/[^/]+)"


@contextmanager
def serve(folder: Path) -> Iterator[LocalHub]:
    """Answer until the context ends; what is pushed is kept in this folder."""
    hub = LocalHub(Objects(folder))

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
        self._read()

    def do_GET(self) -> None:
        self._read()

    def do_POST(self) -> None:
        self._write()

    def do_PUT(self) -> None:
        self._write()

    is_silenced = False

    @property
    def _has_wrong_token(self) -> bool:
        return self.headers.get("Authorization", f"Bearer {TOKEN}") != f"Bearer {TOKEN}"

    @property
    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _is_cut(self) -> bool:
        """Count a request; end its connection where no more are let through."""
        with self.hub.counting:
            self.hub.requests += 1
            if self.hub.requests_left is None:
                return False
            self.hub.requests_left -= 1
            if self.hub.requests_left >= 0:
                return False
        self.close_connection = True
        if self.hub.cut == "after":
            self.is_silenced = True
            return False
        self.connection.close()
        return True

    # Reading

    def _read(self) -> None:
        if self._is_cut():
            return
        path = unquote(urlsplit(self.path).path)
        if self.hub.failing:
            return self._fail(self.hub.failing, "")
        if self._has_wrong_token:
            return self._refuse_token()
        info = re.fullmatch(API_NAME + r"(?:/(revision|tree)/([^/]+(?:/pr/\d+)?)(/.+)?)?", path)
        file = re.fullmatch(f"/{NAME}" + r"/resolve/([^/]+)/(.+)", path)
        if info:
            name, revision = full_name(info[1], info[2]), info[4] or "main"
        elif file:
            name, revision = file[1], file[2]
        else:
            return self._fail(404, "")
        if name in self.hub.renamed:
            return self._redirect(name)
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._may_write):
            return self._fail(401, "RepoNotFound")
        if name in self.hub.gated:
            return self._fail(403, "GatedRepo")
        sha = repository.resolve(revision)
        if sha is None:
            return self._fail(404, "RevisionNotFound")
        files = repository.commits[sha]
        if file:
            return self._send_file(file[3], files, sha)
        if info[3] == "tree":
            folder = f"{info[5][1:]}/" if info[5] else ""
            tree = [
                {"type": "file", "path": p, "size": len(b), "oid": _git_hash(b)} | _large(p, b)
                for p, b in files.items()
                if p.startswith(folder)
            ]
            if folder and not tree:
                return self._fail(404, "EntryNotFound")
            return self._send(json.dumps(tree).encode())
        siblings = [{"rfilename": p} for p in files]
        about = {"id": info[2], "modelId": info[2], "sha": sha, "private": repository.private}
        about |= {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
        return self._send(json.dumps(about).encode())

    def _redirect(self, name: str) -> None:
        """Send a request for a renamed repository on to its new name."""
        names = name, self.hub.renamed[name]
        old, new = (full.split("/", full.count("/") - 1)[-1] for full in names)
        self._send(b"", {"Location": self.path.replace(old, new, 1)}, 307)

    def _send_file(self, path: str, files: Files, sha: str) -> None:
        if path not in files:
            return self._fail(404, "EntryNotFound")
        if path in self.hub.lost and self.command == "GET":
            return self._fail(500, "")
        content = files[path]
        digest = _large(path, content)["lfs"]["oid"] if _large(path, content) else None
        headers = {
            "ETag": f'"{digest or _git_hash(content)}"',
            "X-Repo-Commit": sha,
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, last = 0, len(content) - 1
        if wanted:
            start, last = int(wanted[1]), min(last, int(wanted[2] or last))
            headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
        end = last + 1
        if self.command == "GET" and path in self.hub.cut_after:
            end = start + self.hub.cut_after.pop(path)
        if self.command == "GET":
            self.hub.sent.append((path, start, end - start))
            if self.hub.damaged.get(path, 0):
                self.hub.damaged[path] -= 1
                content = content[:-1] + bytes([content[-1] ^ 1])
        asked = content[start : last + 1]
        self._send(asked, headers, 206 if wanted else 200, upto=end - start)

    # Writing

    def _write(self) -> None:
        if self._is_cut():
            return
        try:
            body = self._read_body()
        except ConnectionAbortedError:
            self.close_connection = True
            return self.connection.close()
        url = urlsplit(self.path)
        path = unquote(url.path)
        if self.hub.failing:
            return self._fail(self.hub.failing, "")
        if stored := re.fullmatch(r"/objects/([0-9a-f]{64})", path):
            if hashlib.sha256(body).hexdigest() != stored[1]:
                return self._fail(400, "")
            self.hub.objects.store(body)
            return self._send(b"")
        if path == "/api/validate-yaml":  # whoever asks
            return self._answer(*check_card(json.loads(body)))
        if self._has_wrong_token:
            return self._refuse_token()
        if not self._may_write:
            return self._fail(401, "")
        if path == "/api/repos/create":
            return self._answer(*create_repository(self.hub, json.loads(body)))
        batch = re.fullmatch(f"/{NAME}" + r"\.git/info/lfs/objects/batch", path)
        action = re.fullmatch(API_NAME + r"/(preupload|commit|branch|variables)(?:/(.+))?", path)
        name = batch[1] if batch else full_name(action[1], action[2]) if action else ""
        if name in self.hub.renamed:
            return self._redirect(name)
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._fail(404, "RepoNotFound")
        if batch:
            return self._answer(*offer_uploads(self.hub, repository, json.loads(body)))
        if action[3] == "variables":
            return self._answer(*set_variable(repository, json.loads(body)))
        if action[3] == "branch":
            return self._answer(*create_branch(repository, action[4]))
        if action[3] == "preupload":
            return self._answer(*sort_files(json.loads(body)))
        as_pr = "create_pr=1" in url.query
        return self._answer(*commit(self.hub, name, action[4], body, as_pr))

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self._receive(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self._receive(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _receive(self, size: int) -> bytes:
        """Raises ConnectionAbortedError where the connection is to be cut within these bytes."""
        with self.hub.counting:  # files arrive side by side
            left = self.hub.upload_left
            read = size if left is None else min(size, left)
            self.hub.upload_left = left if left is None else left - read
            self.hub.received += read
        body = self.rfile.read(read)
        if left is not None and read == left:
            raise ConnectionAbortedError
        return body

    # Answers

    def _answer(self, status: int, content: dict) -> None:
        self._send(json.dumps(content).encode(), status=status)

    def _send(
        self,
        body: bytes,
        headers: dict[str, str] | None = None,
        status: int = 200,
        upto: int | None = None,
    ) -> None:
        if self.is_silenced:
            return self.connection.close()
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

    def _refuse_token(self) -> None:
        message = "Invalid credentials in Authorization header"
        self._send(b"{}", {"X-Error-Message": message}, 401)

    def _fail(self, status: int, code: str) -> None:
        self._send(b"{}", {"X-Error-Code": code} if code else None, status)


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _large(path: str, content: bytes) -> dict:
    """What a file's entry tells of it where it is stored as a large one."""
    if not path.endswith(LARGE_FILES):
        return {}
    digest = hashlib.sha256(content).hexdigest()
    return {"lfs": {"oid": digest, "size": len(content), "pointerSize": 130}}
