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
REPEATS = 3


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
    together, alone, same = [], [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        answers = bridge.generate(scenes, QUESTION)
        together.append(len(scenes) / (time.perf_counter() - start))
        start = time.perf_counter()
        others = [bridge.generate(scene, QUESTION) for scene in some]
        alone.append(len(some) / (time.perf_counter() - start))
        same.append(sum(a == b for a, b in zip(answers[::EVERY], others, strict=True)) / len(some))
    one_by_one = f"one by one, {arguments.engine}"
    report("describe", {f"batch of {len(scenes)}": together, one_by_one: alone}, "scenes/s")
    ratios = [a / b for a, b in zip(together, alone, strict=True)]
    report("describe_ratio", {f"batch against {one_by_one}": ratios}, "times")
    report("describe_agreement", {"answers that are the same": same}, "of those one by one")


if __name__ == "__main__":
    main()
