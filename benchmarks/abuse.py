"""Attack the app while visitors search: a flooder, decompression bombs and a slow reader.

    python -m benchmarks.abuse                        # ten minutes, then ten quiet ones
    python -m benchmarks.abuse --seconds 60 --rest 30

Everything stays on this machine (127.0.0.0/8, Linux) and stops by itself. Each visitor and each
attacker has its own address: visitors from 127.0.1.1, the flooder 127.0.0.2, the uploader
127.0.0.3, the slow reader 127.0.0.4. One visitor in ten asks the model; the others search by words
and pause as a reader does.

Prints the table of docs/security.md. Fails if a visitor met an error, if an attacker got any answer
but a refusal, or if memory or disk exceeded their bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.page_calls import PageEvents, call, send_event
from tests.support.ports import free_port

ROOT = Path(__file__).parent.parent
ASKING = 10  # visitors for each one that asks the model
PAUSE_SECONDS = (2.0, 8.0)  # between searches of one reader
PATIENCE_SECONDS = 60.0
FLOOD_PER_SECOND = 25
SLOW_CONNECTIONS = 300
SAMPLE_SECONDS = 1.0
LOG_CHARACTERS = 3000
WORDS = ("a lake beside forest", "dense forest", "open water", "a village", "fields", "snow")
QUESTIONS = ("Is there water?", "Which land cover dominates?", "How much is built up?")
SCENE = "beetzsee_r0_c00"
MOST_MEMORY, MOST_DISK, LONGEST_MEDIAN = 2.5e9, 1.2e9, 0.5
MAX_STORED = 1.1  # of the memory before, after the quiet minutes


@dataclass
class Run:
    """What all of them met."""

    url: str
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)
    until: float = float("inf")
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    search_seconds: list[float] = field(default_factory=list)
    answer_seconds: list[float] = field(default_factory=list)
    met: dict[str, Counter[str]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    def client(self, address: str) -> httpx.AsyncClient:
        """A client whose connections come from an address."""
        transport = httpx.AsyncHTTPTransport(local_address=address, retries=0)
        api = f"{self.url}gradio_api/"
        return httpx.AsyncClient(base_url=api, transport=transport, timeout=PATIENCE_SECONDS)

    def arguments(self, name: str, **given: Any) -> list[Any]:
        """The arguments of an endpoint in its order: these, and its defaults for the others."""
        return list((self.defaults[name] | given).values())

    def count(self, who: str, what: str) -> None:
        """Note what somebody met."""
        self.met.setdefault(who, Counter())[what] += 1

    @property
    def goes_on(self) -> bool:
        """Whether its time is not over."""
        return time.monotonic() < self.until


async def visit(run: Run, number: int) -> None:
    """One visitor, until the time is over."""
    rng = random.Random(number)
    asks = number % ASKING == 0
    async with run.client(f"127.0.1.{number + 1}") as client:
        await asyncio.sleep(rng.uniform(0, PAUSE_SECONDS[1]))
        while run.goes_on:
            began = time.monotonic()
            if asks:
                given = {"image_id": SCENE, "question": rng.choice(QUESTIONS), "max_length": 48}
                said = await call(client, "ask_scene", run.arguments("ask_scene", **given))
            else:
                given = {"words": rng.choice(WORDS), "count": 12}
                said = await call(client, "search_scenes", run.arguments("search_scenes", **given))
            seconds = time.monotonic() - began
            if said.startswith("data:"):
                (run.answer_seconds if asks else run.search_seconds).append(seconds)
                run.count("visitors", "answered")
            else:
                busy = asks and "busy" in said.lower()
                run.count("visitors", "busy" if busy else "error")
                if not busy:
                    run.faults[f"a visitor met {said[:120]}"] += 1
            await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))


async def flood(run: Run, events: PageEvents) -> None:
    """Call Search without end, each time in a session that is made up."""
    async with run.client("127.0.0.2") as client:
        waiting: set[asyncio.Task] = set()

        async def join() -> None:
            body = events.body("search", words="open water")
            note(run, "flooder", await client.post("queue/join", json=body))

        while run.goes_on:
            waiting.add(asyncio.create_task(guarded(run, "flooder", join)))
            waiting = {task for task in waiting if not task.done()}
            await asyncio.sleep(1 / FLOOD_PER_SECOND)
        await asyncio.gather(*waiting)


async def upload_bombs(run: Run, bombs: dict[str, bytes], events: PageEvents) -> None:
    """Upload files that decode to much, or are no images, and open them."""
    async with run.client("127.0.0.3") as client:
        for name in cycle(run, list(bombs)):

            async def send(name: str = name) -> None:
                reply = await client.post("upload", files={"files": (name, bombs[name])})
                note(run, "uploader", reply)
                if reply.status_code == 200:
                    file = {"path": reply.json()[0], "meta": {"_type": "gradio.FileData"}}
                    action = random.choice(("open_scene", "search_file"))
                    said = await send_event(client, events.body(action, file=file))
                    told = "opened" if '"success":true' in said else "refused to open"
                    run.count("uploader", "busy" if "busy" in said.lower() else told)

            await guarded(run, "uploader", send)


async def read_slowly(run: Run) -> None:
    """Hold connections open: half a head, a body that trickles, and a reply that is not read."""
    url = urllib.parse.urlsplit(run.url)
    host = f"Host: {url.netloc}\r\n".encode()
    head = b"POST /gradio_api/upload HTTP/1.1\r\n" + host
    head += b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 60000000\r\n\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.tif"\r\n\r\nII*\x00'
    unread = b"GET /config HTTP/1.1\r\n" + host + b"\r\n"
    starts = (b"GET / HTTP/1.1\r\n" + host + b"X: ", head + part, unread)
    writers: list[asyncio.StreamWriter] = []

    async def hold(number: int) -> None:
        _, writer = await asyncio.open_connection(
            url.hostname, url.port, local_addr=("127.0.0.4", 0), limit=64
        )
        writers.append(writer)
        writer.write(starts[number % len(starts)])
        run.count("slow reader", "connections")

    while run.goes_on:
        for number in range(min(SLOW_CONNECTIONS - len(writers), SLOW_CONNECTIONS // 10)):
            await guarded(run, "slow reader", partial(hold, number))
        await asyncio.sleep(1)
        for writer in [each for each in writers if each.is_closing()]:
            run.count("slow reader", "broken off by the server")
            writers.remove(writer)
        for writer in writers:
            with contextlib.suppress(OSError):
                writer.write(b"\x00")  # a byte a second
    for writer in writers:
        writer.close()


async def guarded(run: Run, who: str, action: Callable[[], Awaitable[None]]) -> None:
    """Let an abuser's action end in a broken connection, which is an answer too."""
    try:
        await action()
    except (httpx.HTTPError, OSError):
        run.count(who, "connection refused or broken off")


def note(run: Run, who: str, reply: httpx.Response) -> None:
    """Note an abuser's answer: taken, busy, refused, and a fault where the server failed."""
    if reply.status_code >= 500 and "busy" not in reply.text.lower():
        run.faults[f"{who} met {reply.status_code} {reply.text[:100]}"] += 1
    kinds = {200: "taken", 429: "busy", 503: "busy"}
    run.count(who, kinds.get(reply.status_code, "refused"))


def cycle(run: Run, names: list[str]) -> Iterator[str]:
    """Yield names over and over, until the time is over."""
    while run.goes_on:
        yield from names


def make_bombs() -> dict[str, bytes]:
    """Small files that ask for much, one that is no image, and a large one that is fine."""
    from tests.support.made_tiffs import write_directory, write_tiff

    bombs = {
        "tile.tif": write_tiff([write_directory(64, tile=46336)]),
        "directories.tif": write_tiff([write_directory(64)] * 5000),
        "bands.tif": write_tiff([write_directory(16, bands=60000)]),
        "page.html": b"<script>alert(1)</script>" * 1000,
        "sparse.tif": write_tiff([write_directory(2048, bands=13)]),
    }
    wide = Image.new("RGB", (9900, 9900), (10, 90, 200))
    wide.paste(Image.effect_noise((256, 256), 90).convert("RGB"))
    for name, options in (
        ("wide.png", {"compress_level": 1}),
        ("wide.webp", {"method": 0}),
        ("wide.jpg", {"progressive": True, "subsampling": 0}),
    ):
        data = io.BytesIO()
        wide.save(data, {"jpg": "JPEG"}.get(name[-3:], name.split(".")[1].upper()), **options)
        bombs[name] = data.getvalue()
    text = zlib.compress(bytes(50_000_000), 9)
    chunk = struct.pack(">I", len(text) + 6) + b"zTXt" + b"text\x00\x00" + text
    bombs["text.png"] = bombs["wide.png"][:33] + chunk + bytes(4) + bombs["wide.png"][33:]
    return bombs


class Meter:
    """The memory of the app and its children (PSS: shared pages once), and its files on disk."""

    def __init__(self, process: psutil.Process, folder: Path) -> None:
        self.process, self.folder = process, folder
        self.memory: list[int] = []
        self.disk: list[int] = []

    def sample(self) -> int:
        """Measure once; returns the memory in bytes."""
        total = 0
        for each in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += each.memory_full_info().pss
        self.memory.append(total)
        sizes = 0
        for folder, _, names in os.walk(self.folder):  # which passes over what was just deleted
            for name in names:
                with contextlib.suppress(OSError):
                    sizes += os.stat(os.path.join(folder, name)).st_size
        self.disk.append(sizes)
        return total

    async def follow(self, until: float) -> None:
        """Measure until a time."""
        while time.monotonic() < until:
            await asyncio.to_thread(self.sample)
            await asyncio.sleep(SAMPLE_SECONDS)


@contextmanager
def serve(folder: Path, log: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start the app in another process; yields its address."""
    port = free_port()
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder)}
    with log.open("w") as lines:
        app = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=lines, stderr=lines
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        while True:
            if app.poll() is not None:
                raise RuntimeError("The app ended before it was ready.")
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(url, timeout=5)
                break
            time.sleep(0.2)
        yield url, psutil.Process(app.pid)
    finally:
        app.terminate()
        app.wait()


async def attack(run: Run, meter: Meter, visitors: int, seconds: float, rest: float) -> int:
    """Let them all loose for a time, then rest; returns the memory before, in bytes."""
    config = httpx.get(f"{run.url}config", timeout=PATIENCE_SECONDS).json()
    events = PageEvents(config)
    async with run.client("127.0.0.1") as client:
        for name, endpoint in (await client.get("info")).json()["named_endpoints"].items():
            run.defaults[name.strip("/")] = {
                each["parameter_name"]: each.get("parameter_default")
                for each in endpoint["parameters"]
            }
        first = run.arguments("search_scenes", words=WORDS[0], count=12)
        await call(client, "search_scenes", first)
        first = run.arguments("ask_scene", image_id=SCENE, question=QUESTIONS[0], max_length=16)
        await call(client, "ask_scene", first)
    bombs = make_bombs()  # takes seconds, in which nobody else here would be served
    before = meter.sample()
    run.until = time.monotonic() + seconds
    everybody = [visit(run, number) for number in range(visitors)]
    everybody += [flood(run, events), upload_bombs(run, bombs, events), read_slowly(run)]
    tasks = [asyncio.create_task(each) for each in (*everybody, meter.follow(run.until + rest))]
    done, late = await asyncio.wait(tasks, timeout=seconds + max(rest, 2 * PATIENCE_SECONDS) + 30)
    for task in late:
        task.cancel()
    run.faults["a client was not done in time"] += len(late)
    run.faults += Counter()  # forgets what did not happen
    for task in done:
        task.result()
    await asyncio.to_thread(meter.sample)
    return before


def report(run: Run, meter: Meter, before: int, options: argparse.Namespace) -> list[str]:
    """Print the table; return what was out of bounds."""
    searches = run.search_seconds or [float("inf")]
    median, last = np.quantile(searches, (0.5, 0.95))
    met = {
        who: ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
        for who, counts in run.met.items()
    }
    answers = statistics.median(run.answer_seconds) if run.answer_seconds else float("nan")
    after, peak, disk = meter.memory[-1], max(meter.memory), max(meter.disk)
    rows = {
        f"{options.visitors} visitors, {options.seconds:.0f} s": met.get("visitors", "nothing"),
        "their searches, median and 95 %": f"{median:.2f} s and {last:.2f} s",
        "their answers, median, the wait included": f"{answers:.1f} s",
        f"flooder, {FLOOD_PER_SECOND} searches a second": met.get("flooder", "nothing"),
        "uploader of bombs": met.get("uploader", "nothing"),
        f"slow reader, {SLOW_CONNECTIONS} connections": met.get("slow reader", "nothing"),
        "memory before, at most, after quiet minutes": (
            f"{before / 1e9:.2f}, {peak / 1e9:.2f}, {after / 1e9:.2f} GB"
        ),
        "disk at most, at the end": f"{disk / 1e6:.0f}, {meter.disk[-1] / 1e6:.0f} MB",
    }
    print(f"{os.cpu_count()} processors, at a load of {run.load:.1f} before the start\n")
    print("| what | met |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    wrong = [f"{count} times {fault}" for fault, count in run.faults.items()]
    bounds = {
        "the median search": (median, LONGEST_MEDIAN),
        "memory": (peak, MOST_MEMORY),
        "memory after quiet minutes": (after, MAX_STORED * before),
        "disk": (disk, MOST_DISK),
    }
    wrong += [f"{n} was {v:g}, over {b:g}" for n, (v, b) in bounds.items() if v > b]
    return wrong


def main() -> None:
    """Start the app, let everybody loose on it, and print what they met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rest", type=float, default=600, help="seconds after it (%(default)s)")
    options = parser.parse_args()
    if sys.platform != "linux":
        parser.error("it takes addresses of 127.0.0.0/8, which Linux alone has without setting up")
    with tempfile.TemporaryDirectory(prefix="earthvlm-abuse-") as root:
        folder, log = Path(root, "cache"), Path(root, "app.log")
        folder.mkdir()
        with serve(folder, log) as (url, process):
            run, meter = Run(url), Meter(process, folder)
            before = asyncio.run(
                attack(run, meter, options.visitors, options.seconds, options.rest)
            )
            wrong = report(run, meter, before, options)
        if wrong:
            print(f"\nThe end of the app's log:\n{log.read_text()[-LOG_CHARACTERS:]}")
            sys.exit("\n".join(("Out of bounds:", *wrong)))


if __name__ == "__main__":
    main()
