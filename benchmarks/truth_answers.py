"""Ask a bridge under several conditions, remember its answers, and read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.truth_scenes import KnownScene
from earthvlm import OlmoEarthVLMBridge
from earthvlm.data.labels import LAND_COVER, QUARTERS
from earthvlm.metrics.results import bootstrap_interval

# What a bridge is given: all; the text of the context, with zeros for queries; the image alone.
ALL, EVIDENCE, IMAGE = "bridge", "evidence only", "image only"
CONDITIONS = (ALL, EVIDENCE, IMAGE)
BATCH = 16
RESAMPLES = 2000
_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_PERCENT = re.compile(r"(\d+) percent")
NEARLY_ALL, LESS_THAN_ONE = 0.99, 0.005


@contextmanager
def condition_of(bridge: OlmoEarthVLMBridge, condition: str) -> Iterator[None]:
    """Take the queries or the context away from a bridge."""
    config, prefix = bridge.config, bridge.scene_prefix
    try:
        if condition == EVIDENCE:
            bridge.scene_prefix = lambda scenes: torch.zeros_like(prefix(scenes))  # type: ignore[method-assign]
        elif condition == IMAGE:
            bridge.config = replace(config, scene_context=False)
        bridge.memory.contexts.clear()
        yield
    finally:
        bridge.config = config
        vars(bridge).pop("scene_prefix", None)
        bridge.memory.contexts.clear()


class Asker:
    """Asks a bridge, and keeps its answers in a file so that a stopped benchmark continues.

    Args:
        bridge: the bridge; an answer is remembered with its revision.
        path: the file, a JSON object a line.
    """

    def __init__(self, bridge: OlmoEarthVLMBridge, path: Path) -> None:
        self.bridge, self.path = bridge, path
        self.kept: dict[tuple[str, ...], str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                *key, answer = json.loads(line)
            except ValueError:  # a killed process left the line incomplete
                continue
            self.kept[tuple(key)] = answer

    def ask(
        self,
        scenes: Sequence[KnownScene],
        questions: str | Sequence[str],
        condition: str = ALL,
        max_length: int = 48,
    ) -> list[str]:
        """Answer one question about all scenes, or one about each."""
        texts = [questions] * len(scenes) if isinstance(questions, str) else list(questions)
        keys = [
            (self.bridge.revision, condition, known.name, text)
            for known, text in zip(scenes, texts, strict=True)
        ]
        missing = [i for i, key in enumerate(keys) if key not in self.kept]
        with condition_of(self.bridge, condition):
            for start in range(0, len(missing), BATCH):
                batch = missing[start : start + BATCH]
                answers = self.bridge.generate(
                    [scenes[i].scene for i in batch], [texts[i] for i in batch], max_length
                )
                for i, answer in zip(batch, answers, strict=True):
                    self._keep(keys[i], answer)
        return [self.kept[key] for key in keys]

    def chat(self, known: KnownScene, questions: Sequence[str], max_length: int = 112) -> list[str]:
        """Ask questions one after the other in one chat about a scene."""
        key = (self.bridge.revision, "chat", known.name, json.dumps(list(questions)))
        if key not in self.kept:
            messages: list[dict[str, str]] = []
            for question in questions:
                messages.append({"role": "user", "content": question})
                answer = "".join(self.bridge.stream(known.scene, messages, max_length))
                messages.append({"role": "assistant", "content": answer})
            self._keep(key, json.dumps([message["content"] for message in messages[1::2]]))
        return json.loads(self.kept[key])

    def _keep(self, key: tuple[str, ...], answer: str) -> None:
        self.kept[key] = answer
        with open(self.path, "a") as file:
            file.write("\n" + json.dumps([*key, answer]))

    def ask_without_scene(self, question: str, max_length: int = 48) -> str:
        """Answer a question about no scene."""
        key = (self.bridge.revision, "no scene", "", question)
        if key not in self.kept:
            self._keep(key, self.bridge.generate(None, [question], max_length)[0])
        return self.kept[key]


def read_yes_or_no(answer: str) -> bool | None:
    """Whether an answer says yes; None where it says neither."""
    match = _YES_OR_NO.match(answer)
    return None if match is None else match[1].lower() == "yes"


def read_share(answer: str) -> float | None:
    """The share that an answer gives, 0 to 1; None where it gives none."""
    if match := _PERCENT.search(answer):
        less = "less than" in answer[: match.start() + 1]
        return LESS_THAN_ONE if less else int(match[1]) / 100
    if "nearly all" in answer:
        return NEARLY_ALL
    return 0.0 if re.search(r"\bno\b", answer, re.IGNORECASE) else None


def read_quarters(answer: str) -> list[str]:
    """The quarters that an answer names, all of them for "spread over all of the scene"."""
    text = answer.lower()
    return list(QUARTERS) if "over all" in text else [name for name in QUARTERS if name in text]


def read_cover(answer: str) -> str | None:
    """The first cover that an answer names, cloud included."""
    text = answer.lower()
    found = {cover: text.find(cover) for cover in (*LAND_COVER, "cloud") if cover in text}
    return min(found, key=found.__getitem__) if found else None


def read_layout(description: str) -> dict[str, str]:
    """The cover that dominates each quarter, as a description says it."""
    found: dict[str, str] = {}
    for part in re.split(r"[.;]", description):
        match = re.match(r"\s*(.+?) (?:dominates|hides) (.+)", part)
        if match and (cover := read_cover(match[1])):
            names = QUARTERS if "every quarter" in match[2] else read_quarters(match[2])
            found |= dict.fromkeys(names, cover)
    return found


def balanced_accuracy(right: np.ndarray, truth: np.ndarray) -> float:
    """The mean of the shares that are right among those with and those without."""
    return float(np.mean([right[truth].mean(), right[~truth].mean()]))


def balanced_interval(right: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The bootstrap's 95 % interval of a balanced accuracy, resampled with and without apart."""
    rng = np.random.default_rng(0)
    means = [
        rng.choice(right[chosen].astype(float), (RESAMPLES, chosen.sum())).mean(1)
        for chosen in (truth, ~truth)
    ]
    low, high = np.percentile(np.mean(means, axis=0), (2.5, 97.5))
    return float(low), float(high)


def mean_interval(scores: np.ndarray) -> tuple[float, float]:
    """The bootstrap's 95 % interval of a mean."""
    if len(scores) < 2 or np.ptp(scores) == 0:
        return float(np.mean(scores)), float(np.mean(scores))
    return bootstrap_interval((scores,), np.mean, seed=0)
