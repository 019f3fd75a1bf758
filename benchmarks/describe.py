"""How many scenes are described in a second, in batches and one by one.

python -m benchmarks.describe [--scenes 32] [--engine llama]

One by one only some of them are described, each time the batch was; `--engine llama` lets llama.cpp
do that, since it answers one scene at a time.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex

QUESTION = "Describe this scene."
EVERY = 4  # of so many scenes one is described by itself, too
REPEATS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--engine", default="torch", help="torch or llama, of one by one")
    arguments = parser.parse_args()
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu", engine=arguments.engine)
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=arguments.scenes)
    scenes = [Scene.open(result.scene_file) for result in found]
    some = scenes[::EVERY]
    bridge.generate(scenes[:2], QUESTION, max_length=4)
    bridge.generate(scenes[0], QUESTION, max_length=4)
    ways = {
        f"batch of {len(scenes)}": lambda: bridge.generate(scenes, QUESTION),
        "one by one": lambda: [bridge.generate(scene, QUESTION) for scene in some],
    }
    if bridge._drafts is not None:
        ways["one by one, nothing foretold"] = lambda: generate_undrafted(bridge, some)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    same = []
    for _ in range(REPEATS):
        answers = {}
        for name, describe in ways.items():
            start = time.perf_counter()
            answers[name] = describe()
            rates[name].append(len(answers[name]) / (time.perf_counter() - start))
        batch, alone, *_ = answers.values()
        same.append(sum(a == b for a, b in zip(batch[::EVERY], alone, strict=True)) / len(some))
    report("describe", rates, "scenes/s")
    batch = next(iter(rates.values()))
    ratios = {
        f"batch against {name}": [a / b for a, b in zip(batch, rate, strict=True)]
        for name, rate in list(rates.items())[1:]
    }
    report("describe_ratio", ratios, "times")
    report("describe_agreement", {"answers that are the same": same}, "of those one by one")


def generate_undrafted(bridge: OlmoEarthVLMBridge, scenes: list[Scene]) -> list[str]:
    """One by one, as if no answer had been said before."""
    drafts, bridge._drafts = bridge._drafts, None
    answers = [bridge.generate(scene, QUESTION) for scene in scenes]
    bridge._drafts = drafts
    return answers


if __name__ == "__main__":
    main()
