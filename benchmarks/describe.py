"""Measure scenes described a second, in batches and one by one, with and without prompt lookup.

python -m benchmarks.describe [--scenes 32] [--side 64]

With prompt lookup, each way starts from a cache of the same answers about other scenes. One by one,
only every fourth scene is described. Scenes are 128 x 128 pixels, or their first `--side` by
`--side`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex
from earthvlm.generation.prompt_lookup import AnswerCache

QUESTION = "Describe this scene."
EVERY = 4  # scenes for each one that is described one by one too
CACHED = 16  # other scenes, whose answers fill the cache
REPEATS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--side", type=int, default=128, help="pixels")
    arguments = parser.parse_args()
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=arguments.scenes + CACHED)
    scenes = [cut(result.open_scene(), arguments.side) for result in found]
    others, scenes = scenes[:CACHED], scenes[CACHED:]
    some = scenes[::EVERY]
    known = [bridge.language.tokenizer(a).input_ids for a in bridge.generate(others, QUESTION)]
    bridge.generate(scenes[0], QUESTION, max_length=4)  # warms up

    def together() -> list[str]:
        return list(bridge.generate(scenes, QUESTION))

    def alone() -> list[str]:
        return [str(bridge.generate(scene, QUESTION)) for scene in some]

    ways: dict[str, tuple[Callable[[], list[str]], bool]] = {
        f"batch of {len(scenes)}": (together, True),
        "one by one": (alone, True),
        f"batch of {len(scenes)}, no prompt lookup": (together, False),
        "one by one, no prompt lookup": (alone, False),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    same = []
    for _ in range(REPEATS):
        answers = {}
        for name, (describe, looks_up) in ways.items():
            bridge.text_generator.answer_cache = fill_cache(known) if looks_up else None
            start = time.perf_counter()
            answers[name] = describe()
            rates[name].append(len(answers[name]) / (time.perf_counter() - start))
        batch, by_itself, *_ = answers.values()
        same.append(sum(a == b for a, b in zip(batch[::EVERY], by_itself, strict=True)) / len(some))
    report("describe", rates, f"scenes/s ({arguments.side} x {arguments.side})")
    together_rate = next(iter(rates.values()))
    ratios = {
        f"batch against {name}": [a / b for a, b in zip(together_rate, rate, strict=True)]
        for name, rate in list(rates.items())[1:]
    }
    report("describe_ratio", ratios, "times")
    report("describe_agreement", {"answers that are the same": same}, "of those one by one")


def cut(scene: Scene, side: int) -> Scene:
    """The first rows and columns of a scene."""
    return replace(scene, reflectance=scene.reflectance[:side, :side], valid=None, scl=None)


def fill_cache(answers: list[list[int]]) -> AnswerCache:
    """A cache of these answers' token ids."""
    cache = AnswerCache()
    for answer in answers:
        cache.add(answer)
    return cache


if __name__ == "__main__":
    main()
