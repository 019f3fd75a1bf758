"""Measure how soon the app is ready, and its memory while it answers.

python -m benchmarks.app
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from gradio_client import Client

from benchmarks.report import report
from tests.support.ports import free_port

ROOT = Path(__file__).parent.parent
STARTS = 3


def main() -> None:
    ready, peak = [], []
    for _ in range(STARTS):
        port = free_port()
        environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
        start = time.perf_counter()
        app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment)
        try:
            url = f"http://127.0.0.1:{port}/"
            while not _answers(url):
                if app.poll() is not None:
                    raise RuntimeError("The app ended before it was ready.")
                time.sleep(0.1)
            ready.append(time.perf_counter() - start)
            Client(url, verbose=False).predict("a lake beside forest", api_name="/search_scenes")
            status = Path(f"/proc/{app.pid}/status").read_text()
            peak.append(int(status.split("VmHWM:")[1].split()[0]) / 1e6)
        finally:
            app.terminate()
            app.wait()
    # The first start may find a cold disk; what people meet is the next.
    report("app_start", {"ready after (second start on)": ready[1:]}, "s")
    report("app_memory", {"peak after warm-up and a search": peak}, "GB")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return reply.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    main()
