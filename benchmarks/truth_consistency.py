"""Whether wording, order of words and repetition leave an answer as it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.truth_answers import Asker, mean_interval, read_yes_or_no
from benchmarks.truth_scenes import KnownScene
from benchmarks.truth_scores import Row

PAIRS = 100
REPEATED = 12
NAMES = {
    "water": ("water", "open water"),
    "tree cover": ("forest", "tree cover"),
    "built-up land": ("built-up land", "urban land"),
    "snow or ice": ("snow", "snow or ice"),
    "burnt land": ("burnt land", "burned ground"),
}
# Two wordings, and whether the second asks for the opposite.
WORDINGS: tuple[tuple[str, str, bool], ...] = (
    ("Is there {a}?", "Do you see any {b}?", False),
    ("Is there {a}?", "is there any {b} in the picture", False),
    ("Is there any {a} here?", "Can {b} be seen?", False),
    ("Does the image show {a}?", "Is {b} visible?", False),
    ("Is {a} present?", "Have you found {b}?", False),
    ("Is there {a}?", "In this scene, is there {b}?", False),
    ("Is there {a}?", "Could you tell me if there is {b}, please?", False),
    ("Is there {a}?", "I wonder whether the scene has {b}.", False),
    ("Do you see {a}?", "do you se {b}?", False),
    ("Any {a}?", "Is any {b} in view?", False),
    ("Is there {a}?", "Is the scene free of {b}?", True),
    ("Is there {a}?", "Is it without any {b}?", True),
    ("Is there {a}?", "Is it true that there is no {b}?", True),
    ("Do you see {a}?", "Is {b} absent?", True),
    ("Is there any {a}?", "Does the scene lack {b}?", True),
)


def list_pairs(count: int) -> list[tuple[str, str, bool]]:
    """Pairs of wordings of one question."""
    pairs = []
    for number in range(count):
        first, second, opposite = WORDINGS[number % len(WORDINGS)]
        a, b = NAMES[tuple(NAMES)[number // 3 % len(NAMES)]]
        if number % 2:
            a, b = b, a
        pairs.append((first.format(a=a), second.format(b=b), opposite))
    return pairs


def score_consistency(scenes: Sequence[KnownScene], asker: Asker) -> list[Row | None]:
    """Ask pairs of wordings, then the same again, alone and within a chat."""
    chosen = [scenes[i] for i in np.random.default_rng(0).integers(len(scenes), size=PAIRS)]
    pairs = list_pairs(PAIRS)
    first = asker.ask(chosen, [a for a, _, _ in pairs])
    second = asker.ask(chosen, [b for _, b, _ in pairs])
    agree = []
    for one, other, (_, _, opposite) in zip(first, second, pairs, strict=True):
        a, b = read_yes_or_no(one), read_yes_or_no(other)
        # Clouds may hide the ground: then neither says yes or no.
        agree.append(float(a == b if a is None or b is None else (a == b) != opposite))
    agreed = np.array(agree)
    rows: list[Row | None] = [
        Row("pairs of wordings that agree", agreed.mean(), *mean_interval(agreed), PAIRS)
    ]
    bridge, same = asker.bridge, []
    for known, text, (question, _, _) in list(zip(chosen, first, pairs, strict=True))[:REPEATED]:
        message = [{"role": "user", "content": question}]
        again = bridge.generate(known.scene, question, 48)
        drafted = "".join(bridge.stream(known.scene, message, 48))
        same.append(float(len({str(text), again, drafted}) == 1))
    repeated = np.array(same)
    rows.append(
        Row(
            "same answer in a batch, alone and in a chat",
            repeated.mean(),
            *mean_interval(repeated),
            len(same),
        )
    )
    return rows
