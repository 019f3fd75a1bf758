"""A Hub on this machine: the HTTP that huggingface_hub's real client speaks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from tests.hub_store import Files, Objects, Repository

TOKEN = "hf_the_token_that_may_write"
NAME = r"((?:datasets/|spaces/)?[^/]+/[^/]+)"
API_NAME = r"/api/(models|datasets|spaces)/([^/]+/[^/]+)"
LARGE_FILES = (".safetensors", ".parquet", ".png", ".tif")


@dataclass
class LocalHub:
    """What the server knows, what went over it, and what should go wrong.

    Datasets and spaces are named "datasets/owner/name". gated: repositories nobody may read.
    renamed: new names by old ones. failing: the status every request gets. cut_after: connections
    end after so many bytes of a file, once for each file named. damaged: files that arrive with
    other bytes, so many times. requests_left: after so many, connections are cut, "before" a
    request is read, or "after" it was done, without an answer. upload_left: once so many bytes
    arrived, connections are cut. received: the bytes that did.
    """

    objects: Objects
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    failing: int | None = None
    cut_after: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    requests_left: int | None = None
    cut: str = "before"
    upload_left: int | None = None
    requests: int = 0
    received: int = 0
    counting: threading.Lock = field(default_factory=threading.Lock)
    sent: list[tuple[str, int, int]] = field(default_factory=list)  # path, first byte, bytes

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository(self.objects))


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
        info = re.fullmatch(API_NAME + r"(?:/(revision|tree)/([^/]+(?:/pr/\d+)?))?", path)
        file = re.fullmatch(f"/{NAME}" + r"/resolve/([^/]+)/(.+)", path)
        if info:
            name, revision = _full_name(info[1], info[2]), info[4] or "main"
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
            tree = [
                {"type": "file", "path": p, "size": len(b), "oid": _git_hash(b)} | _large(p, b)
                for p, b in files.items()
            ]
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
        content = files[path]
        digest = _large(path, content)["lfs"]["oid"] if _large(path, content) else None
        headers = {
            "ETag": f'"{digest or _git_hash(content)}"',
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
            if self.hub.damaged.get(path, 0):
                self.hub.damaged[path] -= 1
                content = content[:-1] + bytes([content[-1] ^ 1])
        self._send(content[start:], headers, 206 if wanted else 200, upto=end - start)

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
        if self._has_wrong_token:
            return self._refuse_token()
        if not self._may_write:
            return self._fail(401, "")
        if path == "/api/validate-yaml":
            return self._check_card(json.loads(body))
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        batch = re.fullmatch(f"/{NAME}" + r"\.git/info/lfs/objects/batch", path)
        action = re.fullmatch(API_NAME + r"/(preupload|commit|branch|variables)(?:/(.+))?", path)
        name = batch[1] if batch else _full_name(action[1], action[2]) if action else ""
        if name in self.hub.renamed:
            return self._redirect(name)
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._fail(404, "RepoNotFound")
        if batch:
            return self._offer(repository, json.loads(body))
        if action[3] == "variables":
            return self._set_variable(repository, json.loads(body))
        if action[3] == "branch":
            if action[4] in repository.refs:
                return self._fail(409, "")
            repository.refs[action[4]] = repository.refs.get("main", "")
            return self._send(b"{}")
        if action[3] == "preupload":
            return self._sort(json.loads(body))
        return self._commit(repository, name, action[4], body, "create_pr=1" in url.query)

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

    def _create(self, asked: dict) -> None:
        kind = asked.get("type") or "model"
        name = _full_name(f"{kind}s", f"{asked['organization']}/{asked['name']}")
        known = name in self.hub.repositories
        if not known:
            repository = self.hub.repository(name)
            repository.private = asked.get("visibility") == "private"
            repository.commit({})
        where = json.dumps({"url": f"{self.hub.url}/{name}"}).encode()
        self._send(where, status=409 if known else 200)

    def _set_variable(self, repository: Repository, asked: dict) -> None:
        variables = repository.variables
        variables[asked["key"]] = asked["value"]
        self._send(json.dumps({k: {"value": v} for k, v in variables.items()}).encode())

    def _check_card(self, asked: dict) -> None:
        """The Hub's own rule for licences of others; the rest is ModelCardData's."""
        front = yaml.safe_load(asked["content"].split("---")[1])
        named = front.get("license") != "other" or front.get("license_name")
        errors = [] if named else [{"message": '"license_name" is required', "line": 1}]
        status = 400 if errors else 200
        self._send(json.dumps({"errors": errors, "warnings": []}).encode(), status=status)

    def _sort(self, asked: dict) -> None:
        """Say of each file whether it goes into the commit itself or to the large files."""
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE_FILES) else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
        self._send(json.dumps({"files": files}).encode())

    def _offer(self, repository: Repository, asked: dict) -> None:
        """Say where to upload what the repository does not hold yet."""
        held = {
            digest for files in repository.commits.values() for digest in files.digests.values()
        }
        objects = []
        for wanted in asked["objects"]:
            href = f"{self.hub.url}/objects/{wanted['oid']}"
            known = wanted["oid"] in held
            objects.append(wanted if known else wanted | {"actions": {"upload": {"href": href}}})
        self._send(json.dumps({"transfer": "basic", "objects": objects}).encode())

    def _commit(
        self, repository: Repository, name: str, revision: str, body: bytes, as_request: bool
    ) -> None:
        sha = repository.resolve(revision)
        digests = dict(repository.commits[sha].digests) if sha else {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                content = base64.b64decode(value["content"])
                digests[value["path"]] = self.hub.objects.store(content)
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self._fail(400, "")
                digests[value["path"]] = value["oid"]
            elif entry["key"] == "deletedFile":
                del digests[value["path"]]
        ref = f"refs/pr/{len(repository.refs)}" if as_request else revision
        sha = repository.commit_stored(digests, ref)
        done = {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha}
        if as_request:
            done["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/1"
        self._send(json.dumps(done).encode())

    # Answers

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


def _full_name(kind: str, name: str) -> str:
    return name if kind == "models" else f"{kind}/{name}"


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _large(path: str, content: bytes) -> dict:
    """What a file's entry tells of it where it is stored as a large one."""
    if not path.endswith(LARGE_FILES):
        return {}
    digest = hashlib.sha256(content).hexdigest()
    return {"lfs": {"oid": digest, "size": len(content), "pointerSize": 130}}
