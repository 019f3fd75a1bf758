"""How many scenes are described in a second, in batches and one by one.

python -m benchmarks.describe [--scenes 16]
"""

from __future__ import annotations

import argparse
import time

from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex

QUESTION = "Describe this scene."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=16)
    count = parser.parse_args().scenes
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=count)
    scenes = [Scene.open(result.scene_file) for result in found]
    bridge.generate(scenes[:2], QUESTION, max_length=4)
    together, alone, same = [], [], []
    for _ in range(2):
        start = time.perf_counter()
        answers = bridge.generate(scenes, QUESTION)
        together.append(len(scenes) / (time.perf_counter() - start))
        start = time.perf_counter()
        others = [bridge.generate(scene, QUESTION) for scene in scenes]
        alone.append(len(scenes) / (time.perf_counter() - start))
        same.append(sum(a == b for a, b in zip(answers, others, strict=True)) / len(scenes))
    rates = {
        f"batch of {len(scenes)}": together,
        "one by one": alone,
        "ratio": [t / a for t, a in zip(together, alone, strict=True)],
        "answers that are the same": same,
    }
    report("describe", rates, "scenes/s (128 x 128)")


if __name__ == "__main__":
    main()
