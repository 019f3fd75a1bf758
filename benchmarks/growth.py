"""How time and memory grow: with a scene's size, a conversation's length, and a batch.

python -m benchmarks.growth [--large]

Each size is measured in a process of its own, whose peak memory is reported above what loading the
bridge took. Plots go to `results/growth.png`. --large goes on to 2,048 pixels and long talks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.report import RESULTS, report

ROOT = Path(__file__).parent.parent
SIDES = (64, 128, 256, 512, 1024, 2048)
TURNS = (1, 4, 16, 48)
BATCHES = (1, 4, 16, 64)
KINDS = {
    "scene": ("a scene's side, pixels", SIDES, 4),
    "conversation": ("turns read before", TURNS, 3),
    "batch": ("scenes of 64 x 64 embedded at once", BATCHES, 4),
}
PATCH_SIZE = 4
LONG = 10.0  # seconds of calls after which no other is made
WORDS = "There is a lake beside the forest, and some fields in the top left of the scene. " * 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="all sizes, which takes minutes")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]))))
        return
    seconds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for kind, (label, sizes, small) in KINDS.items():
        for size in sizes if arguments.large else sizes[:small]:
            command = [sys.executable, "-m", "benchmarks.growth", "--one", kind, str(size)]
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            found = json.loads(run.stdout.splitlines()[-1])
            seconds[f"{label}: {size}"] = found["seconds"]
            memory[f"{label}: {size}"] = [found["gigabytes"]]
    report("growth_time", seconds, "s")
    report("growth_memory", memory, "GB above the bridge")
    plot(seconds, memory)


def measure(kind: str, size: int) -> dict[str, object]:
    """Seconds of up to three calls and the peak memory they added, in this process."""
    import numpy as np

    from earthvlm import OlmoEarthVLMBridge, Scene
    from earthvlm.sentinel2 import BANDS

    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    bridge.encoder.patch_size = PATCH_SIZE
    rng = np.random.default_rng(0)

    def draw(side: int) -> Scene:
        return Scene.from_array(rng.uniform(100, 4000, (side, side, 12)).astype(np.float32), BANDS)

    scenes = [draw(size if kind == "scene" else 64) for _ in range(size if kind == "batch" else 1)]
    messages = []
    for _ in range(size if kind == "conversation" else 0):
        messages += [{"role": "user", "content": "And?"}, {"role": "assistant", "content": WORDS}]
    messages.append({"role": "user", "content": "Is there water?"})
    bridge.embed([draw(64)])  # lazy parts are loaded
    next(bridge.stream(draw(64), messages[-1:], max_length=1), None)

    def call() -> None:
        if kind == "batch":
            bridge.embed(scenes, size)
        else:
            asked = Scene(scenes[0].reflectance)  # nothing is known of it yet
            for _ in bridge.stream(asked, messages, max_length=1):
                pass

    with PeakMemory() as peak:
        seconds: list[float] = []
        while len(seconds) < 3 and sum(seconds) < LONG:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "gigabytes": peak.added / 1e9}


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


def plot(seconds: dict[str, list[float]], memory: dict[str, list[float]]) -> None:
    """Draw both against each size, on logarithmic axes with a line that grows in proportion."""
    import statistics

    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots(2, len(KINDS))
    for column, (kind, (label, _, _)) in enumerate(KINDS.items()):
        for row, (values, unit) in enumerate(((seconds, "seconds"), (memory, "GB"))):
            points = {
                int(name.rpartition(" ")[2]): statistics.median(found)
                for name, found in values.items()
                if name.startswith(label)
            }
            # Of a scene, what is read grows with its area.
            work = {size: size**2 if kind == "scene" else size for size in points}
            last = max(points)
            plain = [points[last] * work[size] / work[last] for size in points]
            axis = axes[row, column]
            axis.loglog(list(points), [max(v, 1e-4) for v in points.values()], "o-")
            axis.loglog(list(points), plain, ":", color="grey")
            axis.set_xlabel(label)
            axis.set_ylabel(unit)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "growth.png", dpi=100)


if __name__ == "__main__":
    main()
