"""How time and memory grow: with a scene, a conversation, a batch, and the number of users.

    python -m benchmarks.growth                             # small sizes
    python -m benchmarks.growth --large --plot docs/growth.svg

Each size is measured in its own process; peak memory is what comes on top of loading the bridge.
For each kind the exponent of the last step is printed: 1 is growth in proportion (of a scene, to
its pixels).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import RESULTS, report

if TYPE_CHECKING:
    from earthvlm import OlmoEarthVLMBridge, Scene

ROOT = Path(__file__).parent.parent
# What grows, the sizes, and how many of them are measured without --large.
KINDS = {
    "scene": ("pixels of a scene's side", (64, 128, 256, 512, 1024, 2048), 3),
    "conversation": ("turns read before", (1, 4, 16, 48, 96), 3),
    "batch": ("scenes embedded at once", (1, 4, 16, 64, 256), 3),
    "users": ("users who ask at once", (1, 2, 4, 8, 16), 3),
}
SIDE = 64  # pixels, of scenes where something else grows
LONG = 10.0  # seconds of calls after which no other is made
WORDS = "There is a lake beside the forest, and some fields in the top left of the scene. " * 2
QUESTION = {"role": "user", "content": "Is there water?"}
ANSWER_TOKENS = 16  # of each user's answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="all sizes, which takes minutes")
    parser.add_argument("--plot", type=Path, default=RESULTS / "growth.svg", help="where it goes")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]))))
        return
    seconds: dict[str, dict[int, list[float]]] = {}
    memory: dict[str, dict[int, list[float]]] = {}
    for kind, (_, sizes, small) in KINDS.items():
        seconds[kind], memory[kind] = {}, {}
        for size in sizes if arguments.large else sizes[:small]:
            command = [sys.executable, "-m", "benchmarks.growth", "--one", kind, str(size)]
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            found = json.loads(run.stdout.splitlines()[-1])
            seconds[kind][size], memory[kind][size] = found["seconds"], [found["gigabytes"]]
    report("growth_time", _rows(seconds), "s")
    report("growth_memory", _rows(memory), "GB above the bridge")
    exponents = {label: [_exponent(kind, seconds[kind])] for kind, (label, _, _) in KINDS.items()}
    report("growth_exponent", exponents, "power with which time grew in the last step")
    plot(seconds, memory, arguments.plot)


def measure(kind: str, size: int) -> dict[str, object]:
    """Seconds of up to three calls and the peak memory they added, in this process."""
    import numpy as np

    from earthvlm import OlmoEarthVLMBridge, Scene
    from earthvlm.scenes.bands import BANDS

    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    rng = np.random.default_rng(0)

    def draw(side: int) -> Scene:
        return Scene.from_array(rng.uniform(100, 4000, (side, side, 12)).astype(np.float32), BANDS)

    bridge.embed([draw(SIDE)])  # lazy parts are loaded
    next(bridge.stream(draw(SIDE), [QUESTION], max_length=1), None)
    if kind == "users":
        call: Callable[[], object] = _ask_at_once(bridge, [draw(SIDE) for _ in range(size)])
    elif kind == "batch":
        call = partial(bridge.embed, [draw(SIDE) for _ in range(size)])
    else:
        said = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": WORDS}]
        messages = [*(said * size if kind == "conversation" else []), QUESTION]
        scene = draw(size if kind == "scene" else SIDE)

        def ask_from_start() -> None:
            asked = Scene(scene.reflectance)  # nothing is known of it yet
            for _ in bridge.stream(asked, messages, max_length=1):
                pass

        call = ask_from_start

    with PeakMemory() as peak:
        seconds: list[float] = []
        while len(seconds) < 3 and sum(seconds) < LONG:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "gigabytes": peak.added / 1e9}


def _ask_at_once(bridge: OlmoEarthVLMBridge, scenes: list[Scene]) -> Callable[[], None]:
    """As many users as scenes, each asking about one; it is over when the last is answered."""
    from earthvlm import Scene
    from earthvlm.search.index import SceneIndex
    from earthvlm.serving.service import Client, SceneService

    service = SceneService(bridge, SceneIndex.from_pretrained("bundled"))

    def ask(user: int) -> None:
        scene = Scene(scenes[user].reflectance)
        service.ask(scene, QUESTION["content"], Client(str(user)), ANSWER_TOKENS)

    def call() -> None:
        users = [threading.Thread(target=ask, args=(user,)) for user in range(len(scenes))]
        for user in users:
            user.start()
        for user in users:
            user.join()

    return call


class PeakMemory:
    """Watches this process's memory; `added` is the most there was above the beginning."""

    def __enter__(self) -> PeakMemory:
        import psutil

        self._process = psutil.Process()
        self._start = self._process.memory_info().rss
        self.added = 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.added = max(self.added, self._process.memory_info().rss - self._start)


def plot(
    seconds: dict[str, dict[int, list[float]]],
    memory: dict[str, dict[int, list[float]]],
    path: Path,
) -> None:
    """Draw both against each size, on logarithmic axes with a line that grows in proportion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    axes = figure.subplots(2, len(KINDS), sharex="col")
    for column, (kind, (label, _, _)) in enumerate(KINDS.items()):
        for row, (values, unit) in enumerate(((seconds, "seconds"), (memory, "GB added"))):
            points = {size: statistics.median(found) for size, found in values[kind].items()}
            last = max(points)
            plain = [points[last] * _work(kind, size) / _work(kind, last) for size in points]
            axis = axes[row, column]
            axis.loglog(list(points), plain, ":", color="grey", label="in proportion")
            axis.loglog(list(points), [max(v, 1e-3) for v in points.values()], "o-")
            axis.set_xticks(list(points), [f"{size:,}" for size in points])
            axis.minorticks_off()
            axis.set_ylabel(unit if column == 0 else "")
            axis.set_xlabel(label if row else "")
    axes[0, 0].legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


def _work(kind: str, size: int) -> int:
    """What is read: of a scene it grows with its area."""
    return size**2 if kind == "scene" else size


def _exponent(kind: str, points: dict[int, list[float]]) -> float:
    (a, before), (b, after) = sorted(points.items())[-2:]
    more = statistics.median(after) / statistics.median(before)
    return math.log(more) / math.log(_work(kind, b) / _work(kind, a))


def _rows(values: dict[str, dict[int, list[float]]]) -> dict[str, list[float]]:
    return {
        f"{label}: {size:,}": found
        for kind, (label, _, _) in KINDS.items()
        for size, found in values[kind].items()
    }


if __name__ == "__main__":
    main()
