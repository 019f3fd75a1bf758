"""How soon the bundled bridge begins to answer, and how fast it goes on.

python -m benchmarks.answering
"""

from __future__ import annotations

import time

from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex

QUESTION = [{"role": "user", "content": "Describe this scene."}]


def main() -> None:
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=6)
    first, rate = [], []
    for result in found:
        scene = Scene.open(result.scene_file)
        start = time.perf_counter()
        times, tokens = [], 0
        for piece in bridge.stream(scene, QUESTION):
            times.append(time.perf_counter())
            tokens += len(bridge.language.tokenizer(piece).input_ids)
        first.append(times[0] - start)
        rate.append((tokens - 1) / (times[-1] - times[0]))
    report("first_words", {"first words after (128 x 128 scene)": first[1:]}, "s")
    report("decoding", {"after them": rate[1:]}, "tokens/s")


if __name__ == "__main__":
    main()
