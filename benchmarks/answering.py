"""Measure seconds to an answer's first words, in the first turn and in later ones.

python -m benchmarks.answering [--neighbours 1]

Neighbours are processes that compute all the time, as on machines whose cores are shared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex

QUESTIONS = ("Describe this scene.", "Is there water?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--neighbours", type=int, default=0)
    arguments = parser.parse_args()
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=arguments.scenes + 1)
    first: dict[str, list[float]] = {
        "first turn": [],
        "second turn": [],
        "second turn, uncached": [],
    }
    rate, whole = [], []
    for _ in range(arguments.neighbours):
        multiprocessing.Process(target=keep_busy, daemon=True).start()
    for result in found:
        scene, messages = result.open_scene(), []
        for turn, question in zip(first, QUESTIONS, strict=False):
            messages.append({"role": "user", "content": question})
            start = time.perf_counter()
            answer, to_first, then = time_answer(bridge, scene, messages)
            whole.append(time.perf_counter() - start)
            first[turn].append(to_first)
            rate.append(then)
            messages.append({"role": "assistant", "content": answer})
        # A copy of the scene has no cached prefix.
        _, to_first, _ = time_answer(bridge, Scene(scene.reflectance), messages[:-1])
        first["second turn, uncached"].append(to_first)
    # The first scene warms up.
    first = {turn: seconds[1:] for turn, seconds in first.items()}
    report("first_words", first, "s (128 x 128 scene)")
    saved = [
        b / a for a, b in zip(first["second turn"], first["second turn, uncached"], strict=True)
    ]
    report("reuse", {"second turn, with and without the cache": saved}, "times")
    report("decoding", {"after the first words": rate[2:]}, "tokens/s")
    report("answers", dict(zip(QUESTIONS, (whole[2::2], whole[3::2]), strict=True)), "s, whole")


def keep_busy() -> None:
    """Compute until the process ends."""
    while True:
        pass


def time_answer(
    bridge: OlmoEarthVLMBridge, scene: Scene, messages: list[dict[str, str]]
) -> tuple[str, float, float]:
    """Return the answer, seconds to its first words, and tokens a second after them."""
    start, times, said = time.perf_counter(), [], ""
    for piece in bridge.stream(scene, messages):
        times.append(time.perf_counter())
        said += piece
    tokens = len(bridge.language.tokenizer(said, add_special_tokens=False).input_ids)
    return said, times[0] - start, (tokens - 1) / max(times[-1] - times[0], 1e-9)


if __name__ == "__main__":
    main()
