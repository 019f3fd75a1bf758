"""Fuzz the running app's endpoints and MCP with malformed calls; each must get a proper answer.

`python -m tests.support.fuzz_api --calls 10000` starts the app and fails where it answers 500, or
an error without a sentence, or writes a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from earthvlm.ui.errors import UNEXPECTED

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120
# In an app's log: what nobody foresaw.
WRONG_IN_LOG = re.compile(r"Traceback|^ERROR|Internal Server Error", re.MULTILINE)
MCP_HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
# Names of scenes, files, bands and choices among what is nearly right.
TEXTS = (
    "", " ", "a lake", "-city", '-"', "beetzsee_r0_c00", "no_such_scene", "../../etc/passwd",
    "/etc/hostname", "true colour", "NDVI", "auto", "all", "tiles", "2017-06-01", "2017-13-01",
    "4, 47, 16, 55", "16,47,4,55", "1e999 0 0 0", "nan,nan,nan,nan", "<img src=x>", "\x00",
    "\ud800", "é😀\u202e", "x" * 3000, "{}", "null", "http://127.0.0.1:1/x.tif", "%s%n", "a\nb",
)  # fmt: skip
NUMBERS = (0, 1, 4, 16, 0.5, -1, -5, 512, 513, 1e9, -1e308, 10**30, float("nan"), float("inf"))
PATHS = (
    "config", "gradio_api/info", "gradio_api/component_server", "gradio_api/deep_link",
    "gradio_api/queue/status", "gradio_api/queue/data", "gradio_api/heartbeat", "gradio_api/cancel",
    "gradio_api/file=/etc/passwd", "gradio_api/file=http://127.0.0.1:1/", "gradio_api/reset",
    "gradio_api/upload", "gradio_api/upload_progress?upload_id=a", "gradio_api/stream/a/close",
    "gradio_api/call/ask/0", "gradio_api/queue/data?session_hash=none", "pwa_icon/1", "static/../x",
    "assets/%2e%2e/%2e%2e/x", "gradio_api/mcp/sse/x", "gradio_api/mcp/schema?tools=x", "%ff", "a/b",
)  # fmt: skip


@dataclass
class Findings:
    """How many calls of each kind were made, and the problems found."""

    calls: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Fuzzer:
    """Makes calls to the app at an address, each from its own seed."""

    def __init__(self, url: str) -> None:
        self.url = url
        config = requests.get(f"{url}config", timeout=PATIENCE_S).json()
        self.endpoints = [each for each in config["dependencies"] if each["backend_fn"]]
        self.kinds = {each["id"]: each.get("api_info") or {} for each in config["components"]}
        info = requests.get(f"{url}gradio_api/info?all_endpoints=true", timeout=PATIENCE_S).json()
        self.named = info["named_endpoints"]
        self.findings = Findings()
        self.here = threading.local()

    def run(self, calls: int, seed: int = 0, threads: int = 8) -> Findings:
        """Make `calls` calls, several at a time, and return their outcomes."""
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self._call, range(seed, seed + calls)))
        return self.findings

    def _call(self, seed: int) -> None:
        chance = random.Random(seed)
        # The app is started behind a proxy that tells of 250 addresses, so that one address's
        # bounds do not answer for what is behind them.
        self.here.headers = {"x-forwarded-for": f"198.51.100.{seed % 250}"}
        kinds = (self._join, self._join, self._simple, self._named, self._direct, self._route)
        kind = chance.choice((*kinds, self._tool, self._tool, self._message))
        name = kind.__name__.strip("_")
        self.findings.calls[name] += 1
        try:
            problem = kind(chance)
        except (requests.RequestException, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            self.findings.wrong.append(f"seed {seed}, {name}: {problem[:300]}")

    def _join(self, chance: random.Random) -> str | None:
        endpoint = chance.choice(self.endpoints)
        session = f"fuzz{chance.randrange(40)}-{chance.getrandbits(32):x}"
        body = {
            "data": self._spoil([self.kinds[place] for place in endpoint["inputs"]], chance),
            "fn_index": endpoint["id"] if chance.random() < 0.9 else chance.choice([-1, 999, None]),
            "session_hash": session,
        }
        if chance.random() < 0.4:
            body["event_data"] = chance.choice([None, {"index": self._value(chance)}, []])
            body["trigger_id"] = chance.choice([None, 1, -1, 10**9])
        if chance.random() < 0.05:
            body[chance.choice(["data", "batched", "simple_format", "event_id"])] = True
        reply = self._send("POST", "gradio_api/queue/join", body)
        if reply.status_code != 200:
            return self._judge(reply)
        return self._read(f"gradio_api/queue/data?session_hash={session}")

    def _simple(self, chance: random.Random) -> str | None:
        name = chance.choice([*self.named, "/nothing"])
        reply = self._send(
            "POST", f"gradio_api/call{name}", {"data": self._arguments(name[1:], chance)}
        )
        if reply.status_code != 200:
            return self._judge(reply)
        return self._read(f"gradio_api/call{name}/{reply.json()['event_id']}")

    def _named(self, chance: random.Random) -> str | None:
        name = chance.choice([*self.named, "/nothing"])
        names = [
            p["parameter_name"] for p in self.named.get(name, {"parameters": []})["parameters"]
        ]
        arguments = dict(zip(names, self._arguments(name[1:], chance), strict=False))
        reply = self._send("POST", f"gradio_api/call/v2{name}", arguments)
        if reply.status_code != 200:
            return self._judge(reply)
        return self._read(f"gradio_api/call{name}/{reply.json()['event_id']}")

    def _direct(self, chance: random.Random) -> str | None:
        name = chance.choice([*self.named, "/nothing"])
        body = {
            "data": self._arguments(name[1:], chance),
            "session_hash": chance.choice([None, "a"]),
        }
        return self._judge(self._send("POST", f"gradio_api/run{name}", body))

    def _route(self, chance: random.Random) -> str | None:
        method = chance.choice(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"])
        path = chance.choice([*PATHS, "gradio_api/queue/join", "gradio_api/mcp/"])
        if method == "GET" and path.endswith(("heartbeat", "mcp/")):
            method = "HEAD"
        body = chance.choice(
            [b"", b"{", b"[]", b"\xff\xfe", json.dumps(self._value(chance)).encode()]
        )
        kind = chance.choice(["application/json", "multipart/form-data", "text/plain", "x" * 200])
        reply = self._request(method, path, body, {"content-type": kind})
        return self._judge(reply)

    def _tool(self, chance: random.Random) -> str | None:
        name = chance.choice(["describe_scene", "ask_scene", "search_scenes", "open_scene", "ask"])
        known = self.named.get(f"/{name}", {"parameters": []})["parameters"]
        arguments = {
            p["parameter_name"]: self._argument(p["type"], chance)
            for p in known
            if chance.random() < 0.8
        }
        if chance.random() < 0.2:
            arguments[chance.choice(TEXTS)] = self._value(chance)
        parameters: dict[str, Any] = {"name": name, "arguments": arguments}
        if chance.random() < 0.2:
            parameters["_meta"] = {"progressToken": chance.randrange(99)}
        return self._send_message({"method": "tools/call", "params": parameters})

    def _message(self, chance: random.Random) -> str | None:
        methods = ("initialize", "ping", "tools/list", "prompts/get", "resources/read", "a", None)
        message = {"method": chance.choice(methods), "params": self._value(chance)}
        if chance.random() < 0.2:
            return self._send_message(self._value(chance))
        return self._send_message(message)

    def _send_message(self, message: Any) -> str | None:
        whole = {"jsonrpc": "2.0", "id": 1, **message} if isinstance(message, dict) else message
        reply = self._request("POST", "gradio_api/mcp/", json.dumps(whole).encode(), MCP_HEADERS)
        return self._judge(reply)

    def _arguments(self, name: str, chance: random.Random) -> list[Any]:
        known = self.named.get(f"/{name}", {"parameters": []})["parameters"]
        return self._spoil([each["type"] for each in known], chance)

    def _spoil(self, kinds: list[dict[str, Any]], chance: random.Random) -> list[Any]:
        """Arguments of these kinds, sometimes one too many or too few."""
        values = [self._argument(kind, chance) for kind in kinds]
        if chance.random() < 0.1:
            values = values[1:] if chance.random() < 0.5 else [*values, self._value(chance)]
        return values

    def _argument(self, kind: dict[str, Any], chance: random.Random) -> Any:
        """A value that is mostly of the right type, so that a call passes the first check."""
        if chance.random() < 0.15:
            return self._value(chance)
        if "enum" in kind:
            return chance.choice(kind["enum"])
        if kind.get("type") in ("number", "integer"):
            return chance.choice([16, 16, 8, 4, 1, 0, *NUMBERS])
        if kind.get("type") == "boolean":
            return chance.random() < 0.5
        if kind.get("type") == "string":
            return chance.choice(TEXTS)
        return chance.choice([None, [], [self._file(chance)], self._file(chance)])

    def _file(self, chance: random.Random) -> dict[str, Any]:
        path: Any = chance.choice([*TEXTS, "/tmp", str(ROOT / "README.md"), 7])
        if chance.random() < 0.3:
            content = chance.choice([b"", b"II*\0", b"\x89PNG\r\n\x1a\n", chance.randbytes(99)])
            name = chance.choice(["a.tif", "b.png", "c.txt", "d_rgb.png"])
            files = {"files": (name, content)}
            reply = requests.post(
                f"{self.url}gradio_api/upload",
                files=files,
                headers=self.here.headers,
                timeout=PATIENCE_S,
            )
            self.findings.statuses[reply.status_code] += 1
            if reply.status_code == 200:
                (path,) = reply.json()
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    def _value(self, chance: random.Random, depth: int = 0) -> Any:
        """Any JSON value, and some that are not valid JSON."""
        if depth < 3 and chance.random() < 0.25:
            values = [self._value(chance, depth + 1) for _ in range(chance.randrange(3))]
            is_list = chance.random() < 0.5
            return values if is_list else {chance.choice(TEXTS): value for value in values}
        file = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
        return chance.choice([None, True, file, *NUMBERS, *TEXTS])

    def _send(self, method: str, path: str, body: Any) -> requests.Response:
        return self._request(
            method, path, json.dumps(body).encode(), {"content-type": "application/json"}
        )

    def _request(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> requests.Response:
        reply = requests.request(
            method,
            self.url + path,
            data=body,
            headers={**headers, **self.here.headers},
            timeout=PATIENCE_S,
        )
        self.findings.statuses[reply.status_code] += 1
        return reply

    def _read(self, path: str) -> str | None:
        """Read an answer's stream to its end; return its problems."""
        event = ""
        with requests.get(
            self.url + path, stream=True, headers=self.here.headers, timeout=PATIENCE_S
        ) as stream:
            for line in stream.iter_lines(decode_unicode=True):
                if line.startswith("event: "):
                    event = line[7:]
                if "process_completed" in line:
                    done = json.loads(line.removeprefix("data: "))
                    return None if done["success"] else _judge_error(done["output"])
                if line.startswith("data: ") and event in ("error", "complete"):
                    return _judge_error(json.loads(line[6:])) if event == "error" else None
                if "unexpected_error" in line:
                    return line
        return "the stream ended without an answer"

    def _judge(self, reply: requests.Response) -> str | None:
        is_wrong = reply.status_code >= 500 and reply.status_code != 503
        told = (UNEXPECTED, "Traceback", '"error":null', '"error": null')
        if is_wrong or any(each in reply.text for each in told):
            return f"{reply.status_code} {reply.text}"
        return None


def _judge_error(told: Any) -> str | None:
    """Problems of an error message, which should be one expected sentence."""
    sentence = told.get("error") if isinstance(told, dict) else told
    is_sentence = isinstance(sentence, str) and sentence.endswith(".")
    return None if is_sentence and sentence != UNEXPECTED else f"told {told!r}"


def find_wrong_lines(log: str) -> list[str]:
    """The lines of an app's log that report unexpected errors."""
    lines = log.splitlines()
    return [
        " / ".join(lines[max(0, number - 1) : number + 1])
        for number, line in enumerate(lines)
        if WRONG_IN_LOG.search(line)
    ]


def main() -> int:
    """Start the app, make the calls, and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=7870)
    parser.add_argument("--log", type=Path, default=Path("runs/fuzz/app.log"))
    options = parser.parse_args()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "EARTHVLM_TRUSTED_PROXY": "1",
        "GRADIO_SERVER_PORT": str(options.port),
        "GRADIO_TEMP_DIR": str(options.log.parent / "uploads"),
    }
    url = f"http://127.0.0.1:{options.port}/"
    with options.log.open("w") as log:
        app = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        try:
            _wait_for(url, app)
            began = time.monotonic()
            findings = Fuzzer(url).run(options.calls, options.seed)
            seconds = time.monotonic() - began
        finally:
            app.terminate()
            app.wait(30)
    wrong = [*findings.wrong, *find_wrong_lines(options.log.read_text("utf-8"))]
    kinds = ", ".join(f"{count:,} {name}" for name, count in sorted(findings.calls.items()))
    statuses = ", ".join(f"{status}: {n:,}" for status, n in sorted(findings.statuses.items()))
    print(f"{findings.calls.total():,} calls in {seconds:.0f} s ({kinds}); answers {statuses}")
    print(f"{len(wrong)} wrong")
    for each in wrong[:40]:
        print(f"  {each}")
    return 1 if wrong else 0


def _wait_for(url: str, app: subprocess.Popen) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until and app.poll() is None:
        try:
            requests.get(url, timeout=5)
            return
        except requests.RequestException:
            time.sleep(0.5)
    raise TimeoutError("the app did not start")


if __name__ == "__main__":
    sys.exit(main())
