"""Measure what prompt lookup in earlier answers gains, and how many answers stay the same.

python -m benchmarks.prompt_lookup [--scenes 16] [--dtype float32]

Each question is answered about each scene three times: with a cache of all earlier answers, with an
empty cache, and one token at a time. The first scenes fill the cache and are not counted.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.answering import time_answer
from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex
from earthvlm.generation.prompt_lookup import AnswerCache

QUESTIONS = ("Describe this scene.", "Is there water?", "What lies in the top left?")
FILLING = 4  # scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu", dtype=dtype)
    cache = AnswerCache()
    ratios: dict[str, list[float]] = {question: [] for question in QUESTIONS}
    same: dict[str, list[float]] = {"the cache is empty": [], "one token is decoded at a time": []}
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=arguments.scenes + FILLING)
    for number, result in enumerate(found):
        scene = result.open_scene()
        for question in QUESTIONS:
            answers, rate = [], []
            for bridge.text_generator.answer_cache in (cache, AnswerCache(), None):
                asked = Scene(scene.reflectance)  # a copy has no cached prefix
                messages = [{"role": "user", "content": question}]
                answer, _, then = time_answer(bridge, asked, messages)
                answers.append(answer)
                rate.append(then)
            if number >= FILLING:
                ratios[question].append(rate[0] / rate[2])
                for way, other in zip(same, answers[1:], strict=True):
                    same[way].append(float(other == answers[0]))
    report("prompt_lookup_ratio", ratios, "times as many tokens a second")
    share = {f"as when {way}": [sum(found) / len(found)] for way, found in same.items()}
    report("prompt_lookup_agreement", share, "of the answers are the same")


if __name__ == "__main__":
    main()
