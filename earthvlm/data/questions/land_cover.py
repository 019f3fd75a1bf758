"""Questions about land cover and clouds, with answers that follow from a scene's labels."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from earthvlm.data.labels import LAND_COVER, QUARTERS, SCENE_NAMES, SceneLabels
from earthvlm.data.questions import templates
from earthvlm.data.questions.asked_questions import Asked, Known, asked_of_scene, unless_hidden
from earthvlm.data.questions.scene_sentences import (
    HIDDEN,
    VEILED,
    amount,
    capital,
    cover_statement,
    describe,
    describe_in_one_sentence,
    find_quarters,
    listed,
    part_mixture,
    sky_statement,
    with_share,
)
from earthvlm.scenes.land_cover import FIELDS, SHARE_IN_VIEW

# Shares this close to a threshold are not asked about.
TOO_CLOSE = 0.04
# In a part of the scene, a cover below the first is absent and above the second present.
ABSENT_IN_PART, PRESENT_IN_PART = 0.01, 0.04
LISTED_COVERS = 5


def ask_describe(known: Known, rng: random.Random) -> Asked:
    """Ask for a description, which leaves out the kind of scene: few scenes have one."""
    labels = SceneLabels(known.labels.land_cover, known.labels.cloud, known.labels.haze)
    return Asked(rng.choice(templates.DESCRIBE), describe(labels))


def ask_one_sentence(known: Known, rng: random.Random) -> Asked:
    """Ask for a description of one sentence."""
    return Asked(rng.choice(templates.ONE_SENTENCE), describe_in_one_sentence(known.labels))


def ask_dominant(known: Known, rng: random.Random) -> Asked:
    """Ask for the largest cover."""
    return rank(known.labels, 0, rng.choice(templates.DOMINANT))


def ask_second(known: Known, rng: random.Random) -> Asked:
    """Ask for the second largest cover."""
    return rank(known.labels, 1, rng.choice(templates.SECOND))


def ask_smallest(known: Known, rng: random.Random) -> Asked:
    """Ask for the smallest cover in view."""
    seen = [cover for cover in known.labels.shares if known.labels.shows(cover)]
    return rank(known.labels, max(len(seen) - 1, 0), rng.choice(templates.SMALLEST))


def rank(labels: SceneLabels, place: int, question: str) -> Asked:
    """Answer with the largest cover (place 0), the second largest (1), and so on."""
    cover, share = list(labels.shares.items())[place]
    if place and not labels.shows(cover):
        return asked_of_scene(labels, question, "Nothing else of note is in view.")
    answer = f"{capital(cover)}, on {amount(share)} of the scene."
    asked = asked_of_scene(labels, question, answer, cover, cover_statement(labels, cover))
    return replace(asked, place=place) if asked.cover else asked


def ask_water(known: Known, rng: random.Random) -> Asked:
    """Ask whether there is water."""
    if rng.random() < 0.4:
        return presence(known.labels, "water", rng.choice(templates.WATER))
    return presence(known.labels, "water", word_presence("water", rng))


def ask_built_up(known: Known, rng: random.Random) -> Asked:
    """Ask how much is built up."""
    return _share(known.labels, "built-up land", rng.choice(templates.BUILT_UP))


def ask_share(known: Known, rng: random.Random) -> Asked:
    """Ask how much there is of a cover."""
    cover = choose_cover(known.labels, rng)
    question = rng.choice(templates.SHARE).format(cover=rng.choice(templates.SYNONYMS[cover]))
    return _share(known.labels, cover, question)


def ask_present(known: Known, rng: random.Random) -> Asked:
    """Ask whether there is a cover."""
    cover = choose_cover(known.labels, rng)
    return presence(known.labels, cover, word_presence(cover, rng))


def ask_absent(known: Known, rng: random.Random) -> Asked:
    """Ask whether a scene is free of a cover: the same facts, the other way round."""
    cover = choose_cover(known.labels, rng)
    plural = rng.random() < 0.3
    name = rng.choice((templates.PLURALS if plural else templates.SYNONYMS)[cover])
    forms = templates.ABSENT_PLURAL if plural else templates.ABSENT
    question = rng.choice(forms).format(cover=name)
    statement = cover_statement(known.labels, cover)
    word = "No" if known.labels.shows(cover) else "Yes"
    return asked_of_scene(known.labels, question, f"{word}, {statement}.", cover, statement)


def ask_mostly(known: Known, rng: random.Random) -> Asked | None:
    """Ask whether a cover is the main one."""
    labels = known.labels
    main, share = next(iter(labels.shares.items()))
    if share < 0.5 + TOO_CLOSE:
        return None
    cover = main if rng.random() < 0.5 else rng.choice([c for c in LAND_COVER if c != main])
    question = rng.choice(templates.MOSTLY).format(cover=rng.choice(templates.SYNONYMS[cover]))
    statement = cover_statement(labels, main)
    word = "Yes" if cover == main else "No"
    return asked_of_scene(labels, question, f"{word}, {statement}.", main, statement)


def ask_more_than(known: Known, rng: random.Random) -> Asked | None:
    """Ask whether a cover is above a share."""
    question, least = rng.choice(tuple(templates.MORE_THAN.items()))
    cover = choose_cover(known.labels, rng)
    share = known.labels.shares[cover]
    if abs(share - least) < TOO_CLOSE:
        return None
    statement = cover_statement(known.labels, cover)
    answer = f"{'Yes' if share > least else 'No'}, {statement}."
    name = rng.choice(templates.SYNONYMS[cover])
    return asked_of_scene(known.labels, question.format(cover=name), answer, cover, statement)


def ask_place(known: Known, rng: random.Random) -> Asked:
    """Ask what is in a quarter or a half."""
    place = rng.choice(QUARTERS if rng.random() < 0.7 else templates.HALVES)
    part = known.labels.quarter(place)
    name = rng.choice(templates.PLACE_NAMES[place])
    forms: Sequence[str] = templates.PLACE
    if name in templates.COMPASS:
        forms = templates.TO_COMPASS
    elif "side" in name:
        forms = templates.ON_SIDE
    question = rng.choice([form for form in forms if "quarter" not in form or "half" not in place])
    answer = unless_hidden(part, lambda: f"{capital(part_mixture(part))}.", f"the {place}")
    return Asked(question.format(place=name), answer)


def ask_field(known: Known, rng: random.Random) -> Asked | None:
    """Ask what is in a ninth of the scene."""
    if not known.labels.has_fields:
        return None
    name = rng.choice(FIELDS)
    place = rng.choice(templates.FIELD_NAMES[name])
    part = known.labels.field(name)
    answer = unless_hidden(part, lambda: f"Mostly {part.dominant}.", f"the {place}")
    return Asked(rng.choice(templates.IN_FIELD).format(place=place), answer)


def ask_present_in(known: Known, rng: random.Random) -> Asked | None:
    """Ask whether a cover is in a quarter."""
    place = rng.choice(QUARTERS)
    part = known.labels.quarter(place)
    cover = choose_cover(known.labels, rng, in_view=0.8)
    share = part.shares[cover]
    if ABSENT_IN_PART < share < PRESENT_IN_PART:
        return None
    name = rng.choice(templates.SYNONYMS[cover])
    called = rng.choice(templates.PLACE_NAMES[place])
    question = rng.choice(templates.PRESENT_IN).format(cover=name, place=called)
    statement = cover_statement(part, cover, f"the {place}")
    answer = f"{'Yes' if share > SHARE_IN_VIEW else 'No'}, {statement}."
    return Asked(question, unless_hidden(part, lambda: answer, f"the {place}"))


def ask_where(known: Known, rng: random.Random) -> Asked:
    """Ask where a cover or the clouds are."""
    labels = known.labels
    if labels.shows("cloud") and rng.random() < 0.25:
        return where("cloud", labels, rng.choice(templates.WHERE_PLURAL).format(cover="clouds"))
    cover = choose_cover(labels, rng, in_view=0.8)
    without_article = [name.split(" ", 1)[1] for name in templates.SINGULARS[cover]]
    question = _word(
        rng,
        (templates.WHERE, templates.SYNONYMS[cover]),
        (templates.WHERE_PLURAL, templates.PLURALS[cover]),
        (templates.WHERE[:1], without_article),
    )
    return where(cover, labels, question)


def where(cover: str, labels: SceneLabels, question: str) -> Asked:
    """Answer where a cover is, in quarters."""
    if cover != "cloud" and labels.cloud_share > HIDDEN:
        return Asked(question, unless_hidden(labels, str))
    if not labels.shows(cover):
        return Asked(question, f"There is no {cover} in view.", cover, f"there is no {cover}")
    names = find_quarters(labels, cover)
    if len(names) == len(QUARTERS):
        statement = f"{cover} is spread over all of the scene"
        return Asked(question, f"{capital(statement)}.", cover, statement)
    place = f"mostly in the {listed(names)}"
    return Asked(question, f"{capital(place)}.", cover, f"{cover} is {place}")


def ask_scene_class(known: Known, rng: random.Random) -> Asked:
    """Ask for the kind of scene; where none is known, the land cover answers."""
    labels, question = known.labels, rng.choice(templates.SCENE_CLASS)
    if labels.scene_class is None:
        return Asked(question, describe_in_one_sentence(labels))
    kind = SCENE_NAMES[labels.scene_class]
    return Asked(question, unless_hidden(labels, lambda: f"It looks like {kind}."))


def ask_clouds(known: Known, rng: random.Random) -> Asked:
    """Ask whether there are clouds, whether the sky is clear, for haze, or how much is hidden."""
    labels = known.labels
    statement = sky_statement(labels)
    clouds, haze = labels.shows("cloud"), labels.haze_share > VEILED
    kinds = ("clouds", "clouds", "clear", "share", "haze")
    kind = rng.choice(kinds[:-1] if math.isnan(labels.haze_share) else kinds)
    if kind == "share":
        return Asked(
            rng.choice(templates.CLOUD_SHARE), f"{capital(statement)}.", "cloud", statement
        )
    if kind == "clear":
        answer = f"{'No' if clouds or haze else 'Yes'}, {statement}."
        return Asked(rng.choice(templates.CLEAR), answer, "cloud", statement)
    if kind == "haze":
        veil = "haze veils a part of the scene" if haze else "there is no haze in view"
        answer = f"{'Yes' if haze else 'No'}, {veil}."
        return Asked(rng.choice(templates.HAZE), answer, None, veil)
    answer = f"{'Yes' if clouds else 'No'}, {statement}."
    return Asked(rng.choice(templates.CLOUDS), answer, "cloud", statement)


def ask_compare(known: Known, rng: random.Random) -> Asked | None:
    """Ask which of two covers is larger, or whether the first is."""
    labels = known.labels
    shares = labels.shares
    seen = [c for c in LAND_COVER if labels.shows(c)]
    a = rng.choice(seen or LAND_COVER)
    b = rng.choice(
        [c for c in (seen if len(seen) > 1 and rng.random() < 0.7 else LAND_COVER) if c != a]
    )
    a, b = rng.sample((a, b), 2)
    if max(shares[a], shares[b]) < 0.05 or abs(shares[a] - shares[b]) < TOO_CLOSE:
        return None
    more, less = (a, b) if shares[a] > shares[b] else (b, a)
    second = with_share(less, shares[less]) if labels.shows(less) else f"there is no {less} in view"
    both = f"{with_share(more, shares[more])}; {second}."
    names = {"a": rng.choice(templates.SYNONYMS[a]), "b": rng.choice(templates.SYNONYMS[b])}
    if rng.random() < 0.5:
        question = rng.choice(templates.MORE).format(**names)
        return asked_of_scene(labels, question, f"{'Yes' if more == a else 'No'}: {both}")
    return asked_of_scene(labels, rng.choice(templates.COMPARE).format(**names), capital(both))


def ask_all_covers(known: Known, rng: random.Random) -> Asked:
    """Ask for all covers with their shares."""
    shares = known.labels.shares
    seen = [(c, s) for c, s in shares.items() if known.labels.shows(c)] or list(shares.items())[:1]
    parts = [with_share(cover, share) for cover, share in seen[:LISTED_COVERS]]
    return asked_of_scene(
        known.labels, rng.choice(templates.ALL_COVERS), f"{capital(listed(parts))}."
    )


def choose_cover(
    labels: SceneLabels,
    rng: random.Random,
    in_view: float = 0.5,
    covers: Sequence[str] = LAND_COVER,
) -> str:
    """Choose a cover: with the probability `in_view` one that is in view, otherwise any."""
    seen = [cover for cover in covers if labels.shows(cover)]
    return rng.choice(seen if seen and rng.random() < in_view else covers)


def word_presence(cover: str, rng: random.Random) -> str:
    """Word the question whether there is a cover."""
    return _word(
        rng,
        (templates.PRESENT, templates.SYNONYMS[cover]),
        (templates.PRESENT_PLURAL, templates.PLURALS[cover]),
        (templates.PRESENT_SINGULAR, templates.SINGULARS[cover]),
    )


def _word(rng: random.Random, *forms: tuple[Sequence[str], Sequence[str]]) -> str:
    """Word a question by the grammar of a cover's name: without an article, plural, singular."""
    wordings, names = rng.choices(forms, (3, 2, 1))[0]
    return capital(rng.choice(wordings).format(cover=rng.choice(names)))


def presence(labels: SceneLabels, cover: str, question: str) -> Asked:
    """Answer whether there is a cover."""
    statement = cover_statement(labels, cover)
    answer = f"{'Yes' if labels.shows(cover) else 'No'}, {statement}."
    return asked_of_scene(labels, question, answer, cover, statement)


def _share(labels: SceneLabels, cover: str, question: str) -> Asked:
    statement = cover_statement(labels, cover)
    return asked_of_scene(labels, question, f"{capital(statement)}.", cover, statement)
