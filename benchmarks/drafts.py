"""What answers gain that were foretold by those said before, and how many stay the same.

python -m benchmarks.drafts [--scenes 16] [--dtype float32]

Each question is answered about each scene three times: foretold by all that was said before, by
nothing, and read one token after the other. The first scenes, which teach, are not counted.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.answering import time_answer
from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex
from earthvlm.generation.prompt_lookup import AnswerCache

QUESTIONS = ("Describe this scene.", "Is there water?", "What lies in the top left?")
TEACHING = 4  # scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu", dtype=dtype)
    drafts = AnswerCache()
    ratios: dict[str, list[float]] = {question: [] for question in QUESTIONS}
    same: dict[str, list[float]] = {"nothing is known": [], "tokens are read one by one": []}
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=arguments.scenes + TEACHING)
    for number, result in enumerate(found):
        scene = result.open_scene()
        for question in QUESTIONS:
            said, rate = [], []
            for bridge.text_generator.answer_cache in (drafts, AnswerCache(), None):
                asked = Scene(scene.reflectance)  # nothing of it is kept
                messages = [{"role": "user", "content": question}]
                answer, _, then = time_answer(bridge, asked, messages)
                said.append(answer)
                rate.append(then)
            if number >= TEACHING:
                ratios[question].append(rate[0] / rate[2])
                for way, other in zip(same, said[1:], strict=True):
                    same[way].append(float(other == said[0]))
    report("drafts_ratio", ratios, "times as many tokens a second")
    share = {f"as where {way}": [sum(found) / len(found)] for way, found in same.items()}
    report("drafts_agreement", share, "of the answers are the same")


if __name__ == "__main__":
    main()
