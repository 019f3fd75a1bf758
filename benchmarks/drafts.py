"""What answers gain that were foretold by those said before, and how many stay the same.

python -m benchmarks.drafts [--scenes 16] [--dtype float32]

Each question is answered about each scene twice, with nothing foretold and with all that was said
before; the first scenes, which teach, are not counted.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.answering import time_answer
from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex
from earthvlm.drafts import AnswerDrafts

QUESTIONS = ("Describe this scene.", "Is there water?", "What lies in the top left?")
TEACHING = 4  # scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu", dtype=dtype)
    drafts = AnswerDrafts()
    ratios: dict[str, list[float]] = {question: [] for question in QUESTIONS}
    same: dict[str, list[float]] = {question: [] for question in QUESTIONS}
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=arguments.scenes + TEACHING)
    for number, result in enumerate(found):
        scene = Scene.open(result.scene_file)
        for question in QUESTIONS:
            said, rate = [], []
            for bridge._drafts in (None, drafts):
                asked = Scene(scene.reflectance)  # nothing of it is kept
                messages = [{"role": "user", "content": question}]
                answer, _, then = time_answer(bridge, asked, messages)
                said.append(answer)
                rate.append(then)
            if number >= TEACHING:
                ratios[question].append(rate[1] / rate[0])
                same[question].append(float(said[0] == said[1]))
    report("drafts_ratio", ratios, "times as many tokens a second")
    share = {question: [sum(found) / len(found)] for question, found in same.items()}
    report("drafts_agreement", share, "of the answers are the same")


if __name__ == "__main__":
    main()
