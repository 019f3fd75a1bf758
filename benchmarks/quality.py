"""Evaluate answers with and without prompt lookup, to show that they are equally good.

    python -m benchmarks.quality --data_dir DATA [--tiles 48]

DATA has the layout of `earthvlm evaluate`, whose evaluation runs here twice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.evaluation.evaluation import evaluate
from earthvlm.generation.prompt_lookup import AnswerCache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--tiles", type=int, default=48, help="of the validation split")
    arguments = parser.parse_args()
    tiles = ChatEarthNet(arguments.data_dir, "val")
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    answers, figures = {}, {}
    for way, cache in {"one token at a time": None, "prompt lookup": AnswerCache()}.items():
        bridge.text_generator.answer_cache = cache
        figures[way], answers[way] = evaluate(bridge, tiles, limit=arguments.tiles)
    print(f"| measure | {' | 95 % interval | '.join(figures)} | 95 % interval | inside |")
    print("|---|---|---|---|---|---|")
    inside = []
    for plain, looked_up in zip(*figures.values(), strict=True):
        inside.append(float(plain.low <= looked_up.value <= plain.high))
        values = " | ".join(
            f"{figure.value:.3f} | {figure.low:.3f} to {figure.high:.3f}"
            for figure in (plain, looked_up)
        )
        print(f"| {plain.name} | {values} | {'yes' if inside[-1] else 'NO'} |")
    plain, looked_up = answers.values()
    same = [
        float(a[task] == b[task])
        for a, b in zip(plain, looked_up, strict=True)
        for task in a.keys() - {"image", "reference"}
    ]
    report(
        "quality",
        {
            "figures inside the other's interval": [sum(inside) / len(inside)],
            "answers that are the same": [sum(same) / len(same)],
        },
        f"of all, {len(plain)} tiles",
    )


if __name__ == "__main__":
    main()
