"""Synthetic VQA: questions and answers about a scene, generated from its labels."""

from __future__ import annotations

import random
from collections.abc import Callable

from earthvlm.data.labels import LAND_COVER, QUARTERS, SCENE_NAMES, SceneLabels
from earthvlm.data.question_templates import (
    BUILT_UP,
    CLOUDS,
    COMPARE,
    DESCRIBE,
    DOMINANT,
    HALVES,
    PLACE,
    PRESENT,
    SCENE_CLASS,
    SHARE,
    SYNONYMS,
    UNANSWERABLE_QUESTIONS,
    WATER,
    WHERE,
)
from earthvlm.models.chat_templates import Message

# A description mentions land covers above this share of the scene.
MENTIONED = 0.08
# A land cover counts as present above this share of the scene.
IN_VIEW = 0.02
# Above this share of cloud, the land cover counts as hidden.
HIDDEN = 0.85
VEILED = 0.15
# The share of scenes that are paired with their description; the others with a short phrase.
DESCRIBED = 0.35
MAX_TURNS = 5


def write_questions_and_answers(labels: SceneLabels, rng: random.Random) -> list[Message]:
    """Return a conversation of up to MAX_TURNS different questions about one scene."""
    chosen = rng.sample(tuple(QUESTIONS), k=MAX_TURNS, counts=tuple(QUESTIONS.values()))
    messages: list[Message] = []
    for ask in dict.fromkeys(chosen):
        pair = ask(labels, rng)
        if pair is not None:
            messages += [
                {"role": "user", "content": _vary_case(pair[0], rng)},
                {"role": "assistant", "content": pair[1]},
            ]
    return messages or caption_conversation(describe(labels), rng)


def caption_conversation(caption: str, rng: random.Random) -> list[Message]:
    """Return a conversation of one question, answered by the caption."""
    return [
        {"role": "user", "content": rng.choice(DESCRIBE)},
        {"role": "assistant", "content": caption},
    ]


def describe(labels: SceneLabels) -> str:
    """Describe a scene in sentences: its kind, land cover with shares and places, water, sky."""
    if labels.cloud_share > HIDDEN:
        return "Clouds hide almost all of the scene, so the land cover cannot be told."
    sentences = []
    if labels.scene_class:
        sentences.append(f"The scene looks like {SCENE_NAMES[labels.scene_class]}.")
    shares = labels.shares
    first, *others = [c for c, s in shares.items() if s > MENTIONED] or [labels.dominant]
    part = "what can be seen" if labels.cloud_share > VEILED else "the scene"
    sentences.append(f"{_capital(first)} covers {_amount(shares[first])} of {part}.")
    if others:
        sentences.append(f"There is also {_listed([_with_share(c, shares[c]) for c in others])}.")
    sentences.append(_layout(labels))
    if shares["water"] <= IN_VIEW:
        sentences.append("There is no water in view.")
    elif shares["water"] <= MENTIONED:
        sentences.append("A little water is in view.")
    if labels.cloud_share > 0.02 or labels.haze_share > VEILED:
        sentences.append(_sky(labels))
    return " ".join(sentences)


def search_sentence(labels: SceneLabels, rng: random.Random) -> str:
    """Return a sentence that should retrieve the scene: its description, or a short phrase."""
    return describe(labels) if rng.random() < DESCRIBED else short_phrase(labels, rng)


def short_phrase(labels: SceneLabels, rng: random.Random) -> str:
    """Return words that a user might type to find the scene, such as "a lake next to forest"."""
    if labels.cloud_share > HIDDEN:
        return rng.choice(["clouds", "a cloudy scene", "clouds hiding the ground"])
    words = {
        "water": ["a lake", "water", "a river", "open water"],
        "tree cover": ["forest", "trees", "woodland", "tree cover"],
        "cropland or grass": ["fields", "farmland", "cropland or grass", "meadows"],
        "bare soil": ["bare soil", "bare fields", "bare ground"],
        "built-up land": ["a town", "buildings", "built-up land", "houses"],
        "sparse vegetation": ["sparse vegetation", "scrubland"],
    }
    shares = labels.shares
    if labels.scene_class == "River" and shares["water"] > IN_VIEW:
        words["water"] = ["a river", "a river", "water"]
    elif labels.scene_class == "SeaLake":
        words["water"] = ["a lake", "the sea", "open water"]
    elif shares["water"] > 0.8:
        words["water"] = ["open water", "the sea", "a large lake"]
    if labels.scene_class == "Industrial":
        words["built-up land"] = ["an industrial area", "factories", "large buildings"]
    seen = [c for c, s in shares.items() if s > MENTIONED][:3]
    if IN_VIEW < shares["water"] <= MENTIONED and rng.random() < 0.5:
        seen.append("water")
    parts = [rng.choice(words[c]) for c in seen] or ["land"]
    if shares[labels.dominant] > 0.9:
        phrase = parts[0]
        if labels.scene_class and rng.random() < 0.5:
            phrase = SCENE_NAMES[labels.scene_class]
    else:
        if len(parts) == 2 and rng.random() < 0.3:
            parts.reverse()
        joined = rng.choice([" beside ", " and ", " with ", " next to "])
        phrase = joined.join([parts[0], " and ".join(parts[1:])]) if parts[1:] else parts[0]
    if labels.cloud_share > VEILED and rng.random() < 0.5:
        phrase += rng.choice([" under clouds", " with clouds", ", partly cloudy"])
    return phrase


def _ask_describe(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    return rng.choice(DESCRIBE), describe(labels)


def _ask_dominant(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    cover, share = next(iter(labels.shares.items()))
    return rng.choice(DOMINANT), _unless_hidden(
        labels, lambda: f"{_capital(cover)}, on {_amount(share)} of the scene."
    )


def _ask_water(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    return rng.choice(WATER), _unless_hidden(labels, lambda: _presence(labels, "water"))


def _ask_built_up(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    return rng.choice(BUILT_UP), _unless_hidden(labels, lambda: _share_of(labels, "built-up land"))


def _ask_share(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    cover = rng.choice(LAND_COVER)
    question = rng.choice(SHARE).format(cover=rng.choice(SYNONYMS[cover]))
    return question, _unless_hidden(labels, lambda: _share_of(labels, cover))


def _ask_present(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    cover = rng.choice(LAND_COVER)
    question = rng.choice(PRESENT).format(cover=rng.choice(SYNONYMS[cover]))
    return question, _unless_hidden(labels, lambda: _presence(labels, cover))


def _ask_place(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    place = rng.choice(QUARTERS if rng.random() < 0.75 else HALVES)
    part = labels.quarter(place)
    question = rng.choice([q for q in PLACE if "quarter" not in q or "half" not in place])

    def answer() -> str:
        shares = part.shares
        first, *others = [c for c, s in shares.items() if s > MENTIONED] or [part.dominant]
        also = f", with {_listed([_with_share(c, shares[c]) for c in others])}" if others else ""
        return f"{_capital(_with_share(first, shares[first]))}{also}."

    return question.format(place=place), _unless_hidden(part, answer, f"the {place}")


def _ask_where(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    seen = [c for c, s in labels.shares.items() if s > IN_VIEW]
    cover = rng.choice(seen if seen and rng.random() < 0.8 else LAND_COVER)
    question = rng.choice(WHERE).format(cover=rng.choice(SYNONYMS[cover]))
    parts = {name: labels.quarter(name).shares[cover] for name in QUARTERS}
    most = max(parts.values())
    names = [name for name, share in parts.items() if share > 0.5 * most]

    def answer() -> str:
        if cover not in seen:
            return f"There is no {cover} in view."
        if len(names) == len(QUARTERS):
            return f"{_capital(cover)} is spread over all of the scene."
        return f"Mostly in the {_listed(names)}."

    return question, _unless_hidden(labels, answer)


def _ask_scene_class(labels: SceneLabels, rng: random.Random) -> tuple[str, str] | None:
    if labels.scene_class is None:
        return None
    kind = SCENE_NAMES[labels.scene_class]
    return rng.choice(SCENE_CLASS), _unless_hidden(labels, lambda: f"It looks like {kind}.")


def _ask_clouds(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    return rng.choice(CLOUDS), _sky(labels)


def _ask_compare(labels: SceneLabels, rng: random.Random) -> tuple[str, str] | None:
    a, b = rng.sample(LAND_COVER, 2)
    shares = labels.shares
    if max(shares[a], shares[b]) < 0.05 or abs(shares[a] - shares[b]) < 0.03:
        return None
    more, less = (a, b) if shares[a] > shares[b] else (b, a)
    there = shares[less] > IN_VIEW
    second = _with_share(less, shares[less]) if there else f"there is no {less} in view"
    question = rng.choice(COMPARE).format(a=rng.choice(SYNONYMS[a]), b=rng.choice(SYNONYMS[b]))
    return question, _unless_hidden(
        labels,
        lambda: f"{_capital(_with_share(more, shares[more]))}; {second}.",
    )


def _ask_beyond(labels: SceneLabels, rng: random.Random) -> tuple[str, str]:
    answer, questions = rng.choice(tuple(UNANSWERABLE_QUESTIONS.items()))
    return rng.choice(questions), answer


# Questions with their relative frequencies.
QUESTIONS: dict[Callable[[SceneLabels, random.Random], tuple[str, str] | None], int] = {
    _ask_describe: 4,
    _ask_dominant: 4,
    _ask_water: 3,
    _ask_built_up: 2,
    _ask_share: 2,
    _ask_present: 2,
    _ask_place: 12,
    _ask_where: 2,
    _ask_scene_class: 2,
    _ask_clouds: 2,
    _ask_compare: 1,
    _ask_beyond: 2,
}


def _layout(labels: SceneLabels) -> str:
    """Say which land cover dominates which quarters."""
    dominants: dict[str, list[str]] = {}
    for name in QUARTERS:
        quarter = labels.quarter(name)
        seen = "cloud" if quarter.cloud_share > HIDDEN else quarter.dominant
        dominants.setdefault(seen, []).append(name)
    if len(dominants) == 1:
        return f"{_capital(next(iter(dominants)))} dominates every quarter."
    parts = [
        f"{cover} {'hides' if cover == 'cloud' else 'dominates'} the {_listed(names)}"
        for cover, names in dominants.items()
    ]
    return f"{_capital('; '.join(parts))}."


def _presence(labels: SceneLabels, cover: str) -> str:
    share = labels.shares[cover]
    if share <= IN_VIEW:
        return f"No, there is no {cover} in view."
    if share < 0.04:
        return f"Yes, a little {cover}."
    return f"Yes, {cover} covers {_amount(share)} of the scene."


def _share_of(labels: SceneLabels, cover: str) -> str:
    share = labels.shares[cover]
    if share <= IN_VIEW:
        return f"There is no {cover} in view."
    return f"{_capital(cover)} covers {_amount(share)} of the scene."


def _sky(labels: SceneLabels) -> str:
    cloud, haze = labels.cloud_share, labels.haze_share
    if cloud > HIDDEN:
        return "Clouds hide almost all of the scene."
    if cloud > 0.02:
        return f"Clouds hide {_amount(cloud)} of the scene."
    if haze > VEILED:
        return "There are no thick clouds, but haze veils a part of the scene."
    return "The sky is clear: no clouds or haze."


def _unless_hidden(labels: SceneLabels, answer: Callable[[], str], part: str = "the scene") -> str:
    if labels.cloud_share > HIDDEN:
        return f"Clouds hide {part}, so that cannot be told."
    return answer()


def _amount(share: float) -> str:
    """Say a share in words: to the nearest five percent, finer only where it is small."""
    percent = 100 * share
    if percent < 3:
        return "a tiny part"
    if percent > 97.5:
        return "nearly all"
    return f"about {5 * max(1, round(percent / 5))} percent"


def _with_share(cover: str, share: float) -> str:
    return f"{cover} ({_amount(share).removeprefix('about ')})"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _vary_case(question: str, rng: random.Random) -> str:
    """Sometimes drop capitals and the final question mark, as people do."""
    if rng.random() < 0.15:
        question = question.lower()
    return question.rstrip("?.") if rng.random() < 0.1 and question.strip("?.") else question
