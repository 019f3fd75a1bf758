"""Load the app: many sessions that chat, search and read at once, through its own API.

    python -m benchmarks.load                          # 50 sessions for 20 seconds
    python -m benchmarks.load --seconds 600            # as in docs/performance.md

Every session is its own `gradio_client.Client`. One in five asks the model one question after
another, half of those in the page's conversation and half by `/ask_scene`; the others search by
words and pause as a reader does. The only error allowed is "Busy", which is counted: all sessions
come from one address, for which the app lets four questions and four searches wait. The app's limit
on calls from one address is lifted; benchmarks/abuse.py has visitors with their own addresses.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from gradio_client import Client

from benchmarks.report import report
from tests.end_to_end.raw_api import PageCalls
from tests.support.ports import free_port

ROOT = Path(__file__).parent.parent
CHATTING = 5  # sessions for each one that asks the model
TURNS = 4  # of one conversation in the page, before the scene is opened again
LONGEST_ANSWER = 64  # tokens
SCENE = "beetzsee_r0_c00"
PAUSE_SECONDS = (1.0, 4.0)  # between searches of one reader
BUSY_PAUSE_SECONDS = 5.0
PATIENCE_SECONDS = 60.0  # a client gives up after that
MEMORY_EVERY_SECONDS = 2.0
APP = (
    "import earthvlm.ui.security.rate_limits as limits; limits.CALLS_AT_ONCE = 1_000_000; "
    "limits.PAGES_AT_ONCE = limits.MAX_OPEN = 1000; from earthvlm.cli import main; main(['app'])"
)
WORDS = ("a lake beside forest", "dense forest", "open water", "a village", "fields", "snow")
QUESTIONS = ("Is there water?", "Which land cover dominates?", "How much is built up?")


class Load:
    """What the sessions met, added up under one lock."""

    def __init__(self, url: str, seconds: float) -> None:
        self.url = url
        self.until = time.monotonic() + seconds
        self.search_seconds: list[float] = []
        self.answer_seconds: list[float] = []
        self.met: Counter[str] = Counter()
        self.errors: list[str] = []
        self._turns: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run_session(self, number: int, ready: threading.Barrier) -> None:
        """One visitor, until the time is over."""
        rng = random.Random(number)
        client = Client(self.url, verbose=False, httpx_kwargs={"timeout": PATIENCE_SECONDS})
        action = self._search
        if number % CHATTING == 0:
            action = self._ask if number % (2 * CHATTING) == 0 else self._converse
        ready.wait()
        while time.monotonic() < self.until:
            self._try(action, client, rng)
            if action == self._search:
                time.sleep(rng.uniform(*PAUSE_SECONDS))
        client.close()

    def _try(
        self,
        action: Callable[[Client, random.Random], list[float]],
        client: Client,
        rng: random.Random,
    ) -> None:
        began = time.monotonic()
        try:
            seconds = action(client, rng)
        except Exception as error:  # whatever it is, it is what a visitor would have met
            busy = "busy" in str(error).lower()
            with self._lock:
                self.met["busy" if busy else "error"] += 1
                if not busy:
                    self.errors.append(f"{type(error).__name__}: {error}"[:200])
            if busy:
                time.sleep(BUSY_PAUSE_SECONDS)
            return
        with self._lock:
            self.met["search" if action == self._search else "answer"] += 1
            seconds.append(time.monotonic() - began)

    def _search(self, client: Client, rng: random.Random) -> list[float]:
        found = client.predict(rng.choice(WORDS), 12, api_name="/search_scenes")
        if len(found["scenes"]) != 12:
            raise RuntimeError(f"a search found {len(found['scenes'])} scenes")
        return self.search_seconds

    def _ask(self, client: Client, rng: random.Random) -> list[float]:
        asked = (SCENE, rng.choice(QUESTIONS), LONGEST_ANSWER)
        if not client.predict(*asked, api_name="/ask_scene")["answer_by_model"]:
            raise RuntimeError("an answer was empty")
        return self.answer_seconds

    def _converse(self, client: Client, rng: random.Random) -> list[float]:
        turns = self._turns[client.session_hash]
        page = PageCalls(self.url, client.session_hash)
        if turns % TURNS == 0:
            page.stream("open_named", SCENE)
        page.stream("ask", rng.choice(QUESTIONS), LONGEST_ANSWER, 0)
        self._turns[client.session_hash] = turns + 1
        return self.answer_seconds


def main() -> None:
    """Start the app, send the sessions, and print what they met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    port = free_port()
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
    app = subprocess.Popen([sys.executable, "-c", APP], cwd=ROOT, env=environment)
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(url, app)
        load = Load(url, float("inf"))
        ready = threading.Barrier(options.sessions + 1)
        sessions = [
            threading.Thread(target=load.run_session, args=(number, ready), daemon=True)
            for number in range(options.sessions)
        ]
        for session in sessions:
            session.start()
        ready.wait()
        load.until = time.monotonic() + options.seconds
        memory: list[tuple[float, float]] = []  # minutes and MB
        began, process = time.monotonic(), psutil.Process(app.pid)
        while time.monotonic() < load.until:
            minutes = (time.monotonic() - began) / 60
            memory.append((minutes, process.memory_info().rss / 1e6))
            time.sleep(MEMORY_EVERY_SECONDS)
        for session in sessions:
            session.join(timeout=120)
        _report(load, memory)
    finally:
        app.terminate()
        app.wait()
    if load.errors:
        sys.exit("\n".join(sorted(set(load.errors))))


def _wait_for(url: str, app: subprocess.Popen) -> None:
    while True:
        if app.poll() is not None:
            raise RuntimeError("The app ended before it was ready.")
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)


def _report(load: Load, memory: list[tuple[float, float]]) -> None:
    print(", ".join(f"{count} {what}" for what, count in sorted(load.met.items())))
    seconds = {"search by words, while others chat": load.search_seconds}
    if load.answer_seconds:
        seconds["answer, the wait for its turn included"] = load.answer_seconds
    report("load_seconds", seconds, "s")
    names = ("first", "second", "third", "last")
    quarters = zip(names, np.array_split([megabytes for _, megabytes in memory], 4), strict=True)
    report("load_memory", {f"{name} quarter": list(quarter) for name, quarter in quarters}, "MB")
    minutes, megabytes = zip(*memory[len(memory) // 2 :], strict=True)
    slope = np.polyfit(minutes, megabytes, 1)[0]
    print(f"  grew {slope:.1f} MB a minute in the last half")
    print(f"  95 % of searches within {statistics.quantiles(load.search_seconds, n=20)[-1]:.3f} s")


if __name__ == "__main__":
    main()
