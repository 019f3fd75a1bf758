"""Synthetic VQA: conversations about a scene, generated from its labels.

Questions are worded in many ways, with typing errors, and followed by short questions that refer to
the one before. Answers have few forms and follow from the labels, so those of one conversation
agree with each other.
"""

from __future__ import annotations

import random
import re

from earthvlm.data.labels import SceneLabels
from earthvlm.data.questions import land_cover, overview, scenes, templates
from earthvlm.data.questions.asked_questions import Ask, Asked, Known, unless_hidden
from earthvlm.data.questions.scene_sentences import capital, cover_statement, describe
from earthvlm.data.questions.unanswerable import REASONS
from earthvlm.models.language.chat_templates import Message
from earthvlm.scenes.scene import Scene

MAX_TURNS = 5
# Shares of questions: followed by one that refers to it, in lower case, without a question mark,
# with a typing error, asked politely.
FOLLOWED, LOWER, UNMARKED, MISTYPED, POLITE = 0.3, 0.15, 0.1, 0.25, 0.05
MISTYPED_TWICE = 0.3  # of the mistyped
POLITE_FORMS = ("Please tell me: {}", "Hi! {}", "One more question: {}", "{} Thanks.", "Hey, {}")
_LONG_WORD = re.compile("[A-Za-z]{4,}")  # shorter ones are never mistyped
MAX_PLACE = 2  # of the cover after which "And then?" is asked

# Questions with their relative frequencies.
QUESTIONS: dict[Ask, int] = {
    land_cover.ask_describe: 4,
    land_cover.ask_one_sentence: 2,
    land_cover.ask_dominant: 4,
    land_cover.ask_second: 1,
    land_cover.ask_smallest: 1,
    land_cover.ask_all_covers: 1,
    land_cover.ask_water: 3,
    land_cover.ask_built_up: 1,
    land_cover.ask_share: 3,
    land_cover.ask_present: 5,
    land_cover.ask_absent: 2,
    land_cover.ask_mostly: 1,
    land_cover.ask_more_than: 1,
    land_cover.ask_place: 8,
    land_cover.ask_field: 4,
    land_cover.ask_present_in: 2,
    land_cover.ask_where: 12,
    land_cover.ask_scene_class: 1,
    land_cover.ask_clouds: 4,
    land_cover.ask_compare: 2,
    overview.ask_vegetation: 3,
    overview.ask_urban: 2,
    overview.ask_land: 2,
    overview.ask_sides: 2,
    overview.ask_three_things: 1,
    overview.ask_present_otherwise: 3,
    overview.ask_whole: 2,
    scenes.ask_date: 2,
    scenes.ask_coordinates: 2,
    scenes.ask_size: 1,
    scenes.ask_bands: 1,
    scenes.ask_count: 3,
    scenes.ask_shape: 1,
    scenes.ask_area: 3,
    scenes.ask_direction: 1,
    scenes.ask_river: 1,
    scenes.ask_surroundings: 2,
    scenes.ask_beyond: 6,
    scenes.ask_feature: 5,
    scenes.ask_in_another_language: 2,
}


def write_questions_and_answers(
    labels: SceneLabels, rng: random.Random, scene: Scene | None = None, has_map: bool = False
) -> list[Message]:
    """Return a conversation of up to MAX_TURNS questions about one scene.

    scene: gives date, place, size and bands, where the prompt's context states them. has_map:
    whether the context also states the parts of `predicted_map`, which nobody can tell without.
    """
    known = Known(labels, scene, has_map)
    chosen = rng.sample(tuple(QUESTIONS), k=MAX_TURNS, counts=tuple(QUESTIONS.values()))
    messages: list[Message] = []
    for ask in dict.fromkeys(chosen):
        asked = ask(known, rng)
        while asked is not None and len(messages) < 2 * MAX_TURNS:
            messages += [
                {"role": "user", "content": vary_wording(asked.question, rng)},
                {"role": "assistant", "content": asked.answer},
            ]
            asked = _follow(asked, known, rng) if rng.random() < FOLLOWED else None
    return messages or caption_conversation(describe(labels), rng)


def caption_conversation(caption: str, rng: random.Random) -> list[Message]:
    """Return a conversation of one question, answered by the caption."""
    return [
        {"role": "user", "content": rng.choice(templates.DESCRIBE)},
        {"role": "assistant", "content": caption},
    ]


def _follow(asked: Asked, known: Known, rng: random.Random) -> Asked | None:
    """Ask something that refers to the question before, where that was about a cover."""
    cover, labels = asked.cover, known.labels
    if cover is None:
        return None
    seen = labels.shows(cover)
    kinds = ["sure", "why", "other"] + ["where", "how much"] * seen
    kinds += ["next"] * (3 if asked.place is not None and asked.place < MAX_PLACE else 0)
    kind = rng.choice(kinds)
    if kind == "next":
        place = (asked.place or 0) + 1
        wordings = templates.AND_SECOND if place == 1 else templates.NEXT
        return land_cover.rank(labels, place, rng.choice(wordings))
    if kind == "sure":
        if not asked.statement:
            return None
        answer = f"I can be wrong, but this is what I see: {asked.statement}."
        return Asked(rng.choice(templates.SURE), answer)
    if kind == "why":
        reason = REASONS[cover] if seen else "Nothing in the scene looks like it."
        return Asked(rng.choice(templates.WHY), f"{reason} I can be wrong.")
    if kind == "where":
        return land_cover.where(cover, labels, rng.choice(templates.WHERE_IT_IS))
    if kind == "how much":
        statement = cover_statement(labels, cover)
        return Asked(rng.choice(templates.HOW_MUCH), f"{capital(statement)}.", cover)
    other = rng.choice([c for c in templates.SYNONYMS if c != cover])
    name = rng.choice((*templates.SYNONYMS[other], *templates.PLURALS[other]))
    statement = cover_statement(labels, other)
    question = rng.choice(templates.OTHER_COVER).format(cover=name)
    return Asked(question, unless_hidden(labels, lambda: f"{capital(statement)}."), other)


def vary_wording(question: str, rng: random.Random) -> str:
    """Sometimes drop capitals and the question mark, mistype a word, or add a courtesy."""
    if rng.random() < MISTYPED:
        question = mistype(question, rng)
        if rng.random() < MISTYPED_TWICE:
            question = mistype(question, rng)
    if rng.random() < POLITE:
        question = rng.choice(POLITE_FORMS).format(question)
    if rng.random() < LOWER:
        question = question.lower()
    return question.rstrip("?.") if rng.random() < UNMARKED and question.strip("?.") else question


def mistype(question: str, rng: random.Random) -> str:
    """Swap, drop or repeat a letter of one of the longer words, but not its first letter."""
    long = list(_LONG_WORD.finditer(question))
    if not long:
        return question
    found = rng.choice(long)
    word = found[0]
    at = rng.randrange(1, len(word) - 1)
    changed = rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        )
    )
    return question[: found.start()] + changed + question[found.end() :]
