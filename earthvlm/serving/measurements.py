"""Spectral measurements for visitors: a summary, suggested questions, matches with a text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from earthvlm.scenes.analysis.spectral_indices import SpectralIndices, percent

# Shares below these are left out of a summary, or called none.
MIN_CLOUD_OR_SNOW, MIN_WATER = 0.05, 0.005
SUGGESTED_QUESTIONS = 5
# Words in an answer, the name of what they refer to, and the measured covers that it consists of.
_TOPICS: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...] = (
    (("water", "lake", "river", "sea", "reservoir"), "open water", ("water",)),
    (("cloud", "haze"), "thick cloud", ("cloud",)),
    (("snow", "ice"), "snow", ("snow",)),
    (
        ("tree", "forest", "wood", "crop", "grass", "vegetation", "shrub", "field"),
        "vegetation of any kind",
        ("dense vegetation", "sparse vegetation"),
    ),
    (("built", "bare", "urban", "residential", "city"), "bare or built", ("bare or built",)),
)
# Words of a topic, and what else can be asked about it.
_FOLLOW_UPS = (
    ("water|lake|river|pond|sea", ("Where is the water?", "How much of the scene is water?")),
    ("tree|forest|wood", ("Where are the trees?", "How much is covered by trees?")),
    ("crop|field|grass|meadow", ("Where is the cropland?", "How much is cropland or grass?")),
    (
        "built|village|town|city|house",
        ("Where is the built-up land?", "How much is built up?"),
    ),
    ("cloud|haze", ("Where are the clouds?", "How much of the scene is hidden by clouds?")),
    ("snow|ice", ("Where is the snow?", "How much of the scene is snow?")),
)
_FURTHER = ("What is in the top left?", "What is in the bottom right?", "Is there snow?")


def summarize_measurements(measurements: SpectralIndices | None) -> str:
    """Return a short phrase for a caption, such as "12 % water, 86 % vegetation"."""
    if measurements is None:
        return "No near infrared, so nothing was measured"
    parts = []
    for cover in ("cloud", "snow"):
        share = measurements.share(cover)
        if share >= MIN_CLOUD_OR_SNOW:
            parts.append(f"{percent(share)} {cover}")
    water, vegetation = measurements.share("water"), measurements.vegetation
    parts.append(f"{percent(water)} water" if water >= MIN_WATER else "no open water")
    parts.append(f"{percent(vegetation)} vegetation" if vegetation else "no vegetation")
    phrase = ", ".join(parts)
    return phrase[0].upper() + phrase[1:]


def suggest_questions(measurements: SpectralIndices | None) -> list[str]:
    """Return five questions that fit a scene, the most general first."""
    questions = ["Describe this scene.", "Which land cover dominates?"]
    if measurements is None:
        return [*questions, "Is there water?", "How much is built up?", "What is in the top left?"]
    fitting = []
    if measurements.share("cloud") > 0.1:
        fitting.append("Is the scene cloudy?")
    if measurements.share("snow") > 0.1:
        fitting.append("Is there snow?")
    if measurements.share("water") > 0.01:
        fitting += ["Is there water?", "Where is the water?"]
    if measurements.vegetation > 0.5:
        fitting.append("How much is covered by trees?")
    if measurements.share("bare or built") > 0.1:
        fitting.append("How much is built up?")
    spare = ["What is in the top left?", "Is there water?", "How much is cropland or grass?"]
    fitting += [question for question in spare if question not in fitting]
    return [*questions, *fitting][:SUGGESTED_QUESTIONS]


def suggest_next(asked: Sequence[str], answer: str, fitting: Sequence[str]) -> list[str]:
    """Return as many questions as `fitting` that continue a conversation.

    asked: the questions so far; none is suggested again. answer: to the last of them; what it says
    is there can be asked about. fitting: questions that fit the scene, which follow.
    """
    said = f"{asked[-1]} {answer}".lower() if asked else ""
    topics = [
        questions
        for words, questions in _FOLLOW_UPS
        if re.search(rf"\b(?:{words})", said)
        and not re.search(rf"\bno (?:\w+ )?(?:{words})", answer.lower())
    ]
    known = {question.strip().lower() for question in asked}
    # Whether a cover is there was answered with where it is and with how much of it there is.
    known |= {
        f"is there {word}?"
        for word in ("water", "snow")
        if any(re.search(rf"\b{word}\b", question) for question in known)
    }
    offered = [*(q for topic in topics[:2] for q in topic), *fitting, *_FURTHER]
    new = [question for question in dict.fromkeys(offered) if question.lower() not in known]
    return [*new, *(q for q in fitting if q not in new)][: len(fitting)]


def select_measurements(text: str, measurements: SpectralIndices | None) -> list[tuple[str, float]]:
    """Return name and share, 0 to 1, of each measured cover that a question or answer mentions."""
    if measurements is None:
        return []
    words_found = text.lower()
    return [
        (name, measurements.share(*covers))
        for words, name, covers in _TOPICS
        if any(word in words_found for word in words)
        and any(cover in measurements.shares for cover in covers)
    ]
