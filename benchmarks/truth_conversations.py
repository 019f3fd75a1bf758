"""A hundred conversations of five questions, judged by rules where a rule can judge.

`truth_conversations.json` lists them: a scene ("bundled:ID", "scenes:NAME", "world:ID"), a variant
("full", "photo" or "four bands"), and five turns, each a question with a rule, or null where only
people can judge. Parts of a rule: "yes", "no" (how the answer begins), "cover:a|b" (the first cover
it names), "share:0.1-0.2", "quarters:a|b" (exactly these), "all:a|b" and "any:a|b" (texts in it),
"refuse", "english" ("Please ask in English."), "sentence" (exactly one).
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.truth_answers import (
    Asker,
    mean_interval,
    read_cover,
    read_quarters,
    read_share,
    read_yes_or_no,
)
from benchmarks.truth_scenes import KnownScene, as_photos, read_patch
from benchmarks.truth_scores import Row
from earthvlm import Scene, SceneIndex
from earthvlm.data.labels import LAND_COVER
from earthvlm.data.questions.unanswerable import ASK_IN_ENGLISH
from earthvlm.scenes.bands import BANDS

CONVERSATIONS = Path(__file__).with_name("truth_conversations.json")
# Conversations with answers and what a person called each: one of VERDICTS.
JUDGED = Path(__file__).with_name("truth_judged.json")
ACCEPTED = ("right", "refused")  # refused where nobody could answer
VERDICTS = (*ACCEPTED, "evasive", "wrong")
FOUR_BANDS = ("B02", "B03", "B04", "B08")
REFUSALS = ("cannot", "beyond", "do not know", "can only", "not given", "single moment", "not see")


def judge(answer: str, rule: str) -> bool:
    """Whether an answer keeps a rule. Raises ValueError for an unknown rule."""
    kind, _, wanted = rule.partition(":")
    text, options = answer.lower(), wanted.lower().split("|")
    if kind in ("yes", "no"):
        said = read_yes_or_no(answer)
        denies = said is None and re.match(r"\W*(there (is|are) no|none)\b", text) is not None
        return said == (kind == "yes") if said is not None else denies and kind == "no"
    if kind == "share":
        low, high = map(float, wanted.split("-"))
        share = read_share(answer)
        return share is not None and low <= share <= high
    judges = {
        "cover": lambda: (read_cover(answer) or "") in options,
        "quarters": lambda: sorted(read_quarters(answer)) == sorted(options),
        "all": lambda: all(option in text for option in options),
        "any": lambda: any(option in text for option in options),
        "refuse": lambda: any(word in text for word in REFUSALS),
        "english": lambda: ASK_IN_ENGLISH.lower() in text,
        "sentence": lambda: len(re.findall(r"[.!?](?:\s|$)", answer.strip())) == 1,
    }
    if kind not in judges:
        raise ValueError(f"There is no rule {kind!r}: choose from {', '.join(judges)}.")
    return bool(judges[kind]())


def find_contradictions(answers: list[str]) -> list[str]:
    """The covers that one answer of a conversation gives a share of and another denies."""
    found = []
    for cover in LAND_COVER:
        denied = any(f"no {cover} in view" in answer.lower() for answer in answers)
        given = any(
            re.search(rf"{cover} (?:covers (?:about|nearly|less)|\(\d+ percent)", answer.lower())
            and "of the top" not in answer
            and "of the bottom" not in answer
            for answer in answers
        )
        if denied and given:
            found.append(cover)
    return found


def open_scene(folder: Path, name: str, variant: str) -> KnownScene:
    """Open a conversation's scene. Raises ValueError for an unknown source or variant."""
    known = _open(folder, name)
    if variant == "photo":
        return as_photos([known])[0]
    if variant == "four bands":
        kept = np.isin(BANDS, FOUR_BANDS)
        pixels = np.where(kept, known.scene.reflectance, np.nan).astype(np.float32)
        scene = replace(known.scene, reflectance=pixels)
        return replace(known, name=f"{known.name} in four bands", scene=scene)
    if variant != "full":
        raise ValueError(f"There is no variant {variant!r} of a scene.")
    return known


@cache
def _open(folder: Path, name: str) -> KnownScene:
    source, _, image = name.partition(":")
    if source == "bundled":
        return KnownScene(name, SceneIndex.from_pretrained("bundled").get(image).open_scene())
    if source == "scenes":
        return KnownScene(name, Scene.open(folder / "scenes" / f"{image}.tif"))
    if source == "world":
        return KnownScene(name, read_patch(folder, image))
    raise ValueError(f"{name!r} is no scene of a conversation.")


def score_conversations(folder: Path, asker: Asker, limit: int | None) -> list[Row | None]:
    """Hold every conversation; print what is wrong, and what only people can judge."""
    right, without = [], []
    entries = json.loads(CONVERSATIONS.read_text())[:limit]
    for number, entry in enumerate(entries, start=1):
        known = open_scene(folder, entry["scene"], entry["variant"])
        answers = asker.chat(known, [question for question, _ in entry["turns"]])
        for (question, rule), answer in zip(entry["turns"], answers, strict=True):
            if rule is not None:
                right.append(float(judge(answer, rule)))
            verdict = "JUDGE" if rule is None else "" if right[-1] else f"WRONG ({rule})"
            if verdict:
                print(f"{number}. {known.name}: {question} -> {answer} {verdict}")
        contradictions = find_contradictions(answers)
        without.append(float(not contradictions))
        if contradictions:
            print(f"{number}. {known.name}: contradicts itself on {', '.join(contradictions)}")
    rows: list[Row | None] = []
    for name, given in (
        ("answers that a rule can judge", right),
        ("without contradiction", without),
    ):
        scores = np.array(given)
        rows.append(
            Row(f"conversations: {name}", scores.mean(), *mean_interval(scores), len(scores))
        )
    return rows


def score_judged(folder: Path, asker: Asker, limit: int | None) -> list[Row | None]:
    """Hold the conversations that a person judged.

    Answers that differ from the judged ones are printed, for a new judgement, and not counted.
    """
    accepted = []
    for entry in json.loads(JUDGED.read_text())[:limit]:
        known = open_scene(folder, entry["scene"], entry["variant"])
        answers = asker.chat(known, [question for question, _, _ in entry["turns"]])
        for (question, before, verdict), answer in zip(entry["turns"], answers, strict=True):
            if answer == before:
                accepted.append(float(verdict in ACCEPTED))
            else:
                print(f"{known.name}: {question} -> {answer} JUDGE (before, {verdict}: {before})")
    if not accepted:
        return [None]
    scores = np.array(accepted)
    name = "conversations: right or rightly refused, by a person"
    return [Row(name, scores.mean(), *mean_interval(scores), len(scores))]
