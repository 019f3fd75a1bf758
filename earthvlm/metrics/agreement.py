"""Where a model's answer departs from what was measured, by more than the measurement's error.

An answer's claims about the whole scene are read from its sentences: "water covers about 35 percent
of the scene", "there is no snow in view", "tree cover (60 percent)". Of what it says of parts of
the scene, only where a cover is, "mostly in the top left", is compared, with the land-cover map.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from earthvlm.data.labels import QUARTERS, SceneLabels
from earthvlm.data.questions.scene_sentences import find_quarters, listed
from earthvlm.data.questions.templates import (
    FIELD_NAMES,
    PLACE_NAMES,
    PLURALS,
    SINGULARS,
    SYNONYMS,
)
from earthvlm.scenes.analysis.spectral_indices import MEASURED_AS, SpectralIndices, percent
from earthvlm.scenes.land_cover import COVERS, SHARE_IN_VIEW, CoverMap

# Plants of any kind are at least as many as trees.
VEGETATION = "vegetation"
# Models round shares to five percent.
ROUNDING = 0.025
# Shares of a map are as certain as this; it is compared where indices do not measure a cover.
MAP_ERROR = 0.1
# "A little water" is a share of up to this.
LITTLE = 0.1
NEARLY_ALL = 0.95
# What is measured to be less is not there.
NOTHING = 0.002
_COVERS = {
    **{
        cover: (cover, *SYNONYMS[cover], *PLURALS[cover], *SINGULARS.get(cover, ()))
        for cover in SYNONYMS
    },
    "cloud": ("clouds", "cloud"),
}
_NAMES = "|".join(
    sorted({re.escape(name) for names in _COVERS.values() for name in names}, key=len, reverse=True)
)
_SHARE = r"(?P<share>about \d+ ?(?:percent|%)|\d+ ?(?:percent|%)|nearly all|almost all|less than 1)"
_PLACES = " ".join(chain(*PLACE_NAMES.values(), *FIELD_NAMES.values()))
_PARTS = {"quarter", *re.findall(r"\w+", _PLACES)} - {"of", "the", "very"}
_PART_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_PARTS))})\b", re.IGNORECASE)
# A word this like the name of a part, and with its first letter, is the name with a typing error.
_MISTYPED = 0.75
_WHOLE = r"(?: percent)? of (?:the scene|what can be seen|it)"
_CLAIMS = (
    re.compile(rf"\b(?P<cover>{_NAMES}) (?:covers?|hides?|fills?) {_SHARE}{_WHOLE}", re.IGNORECASE),
    re.compile(rf"\b(?P<cover>{_NAMES}), on {_SHARE}{_WHOLE}", re.IGNORECASE),
    re.compile(rf"\b(?P<cover>{_NAMES}) \({_SHARE}(?: percent)?\)", re.IGNORECASE),
    re.compile(rf"\b(?P<none>no) (?P<cover>{_NAMES})\b(?! or)", re.IGNORECASE),
    re.compile(rf"\b(?P<little>a little) (?P<cover>{_NAMES})\b", re.IGNORECASE),
)
_QUARTER = re.compile(rf"\b(?:{'|'.join(QUARTERS)})\b")
_MOSTLY = re.compile(r"(?:mostly )?in the\b", re.IGNORECASE)
_DENIAL = re.compile(r"(?:there (?:is|are) )?no\b", re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """What an answer says of a cover of the whole scene: a share between two bounds, 0 to 1."""

    cover: str
    low: float
    high: float

    def describe(self) -> str:
        """Return the claim as in "35 % water", "no snow or ice", "water"."""
        if self.high == 0:
            return f"no {self.cover}"
        if self.low >= NEARLY_ALL:
            return f"nearly all {self.cover}"
        if self.low != self.high:
            return f"a little {self.cover}" if self.high <= LITTLE else self.cover
        return f"{percent(self.low)} {self.cover}"


@dataclass(frozen=True)
class Reference:
    """A share that a claim is compared with.

    Attributes:
        source: "measured" or "on the map".
        name: of the cover.
        share: of the scene, 0 to 1.
        visible: of what clouds leave to be seen, 0 to 1; a claim may mean either.
        error: of the share, LEAST_ERROR included.
        doubtful: of the share, by its own pixels alone.
        is_upper_bound: whether a smaller share agrees too.
    """

    source: str
    name: str
    share: float
    visible: float
    error: float
    doubtful: float
    is_upper_bound: bool = False


def find_disagreements(
    question: str,
    answer: str,
    measured: SpectralIndices | None,
    cover_map: CoverMap | None = None,
) -> list[str]:
    """Return a sentence for each claim of an answer that departs from measurement or map.

    Args:
        question: what the answer answers; one about a part of the scene is not compared.
        answer: the model's.
        measured: of the scene; None where nothing could be measured.
        cover_map: the scene's land-cover map, by which covers are compared that indices do not
            measure, and where a cover is; None leaves both out.
    """
    if _asks_of_part(question):
        return []
    sentences = {}
    for claim in read_claims(question, answer):
        reference = _find_reference(claim.cover, measured, cover_map)
        if reference is None or _agrees(claim, reference):
            continue
        shown = percent(reference.share)
        error = f" ± {100 * reference.error:.0f}" if reference.share else ""
        named = "" if reference.name == claim.cover else f" {reference.name}"
        sentences[claim.cover] = (
            f"The model says {claim.describe()}; {reference.source}: {shown}{error}{named}."
        )
    misplaced = _find_misplaced(question, answer, cover_map) if cover_map else {}
    return list((misplaced | sentences).values())


def _asks_of_part(question: str) -> bool:
    """Whether a question is about a part of the scene, whose name may be mistyped."""
    if _PART_WORD.search(question):
        return True
    return any(
        difflib.get_close_matches(
            word, [part for part in _PARTS if part[0] == word[0]], n=1, cutoff=_MISTYPED
        )
        for word in re.findall("[a-z]{4,}", question.lower())
    )


def _find_misplaced(question: str, answer: str, cover_map: CoverMap) -> dict[str, str]:
    """Return a sentence, by its cover, where no quarter that an answer names holds much of it."""
    asked = mentioned_covers(question)
    named = _QUARTER.findall(_split_sentences(answer.lower())[0])
    if len(asked) != 1 or not named or not _MOSTLY.match(answer) or not cover_map.shows(asked[0]):
        return {}
    (cover,) = asked
    notable = find_quarters(SceneLabels.from_cover_map(cover_map), cover)
    if set(named) & set(notable):
        return {}
    quarters = (part.classes for row in cover_map.split(2, 2) for part in row)
    pixels = {
        name: (classes == COVERS.index(cover)).sum()
        for name, classes in zip(QUARTERS, quarters, strict=True)
    }
    held = percent(sum(pixels[name] for name in notable) / sum(pixels.values()))
    return {
        cover: f"The model says mostly in the {listed(named)}; on the map: "
        f"{held} of the {cover} in the {listed(notable)}."
    }


def drop_false_denials(
    description: str, measured: SpectralIndices | None, cover_map: CoverMap | None = None
) -> str:
    """Return a description without the sentences that deny a cover which is measured or mapped.

    A description of nothing but such sentences is returned whole.
    """
    sentences = _split_sentences(description)
    left = [
        text
        for text in sentences
        if all(claim.high > 0 for claim in read_claims("", text))
        or not find_disagreements("", text, measured, cover_map)
    ]
    return " ".join(left or sentences)


def drop_denials(description: str) -> str:
    """Return a description without the sentences that say what there is not.

    Embedded, "There is no water in view." is near to "a lake". A description of nothing but such
    sentences is returned whole.
    """
    sentences = _split_sentences(description)
    return " ".join([text for text in sentences if not _DENIAL.match(text)] or sentences)


def _split_sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.;])\s+", text)


def read_claims(question: str, answer: str) -> Iterator[Claim]:
    """Yield what an answer says of covers of the whole scene."""
    for sentence in _split_sentences(answer):
        about_part = _PART_WORD.search(sentence)
        for pattern in () if about_part else _CLAIMS:
            for match in pattern.finditer(sentence):
                yield _read_claim(match)
        if about_part and _MOSTLY.match(sentence):
            asked = mentioned_covers(question)
            if len(asked) == 1:
                yield Claim(asked[0], SHARE_IN_VIEW, 1.0)


def _read_claim(match: re.Match[str]) -> Claim:
    found = match.groupdict()
    name = found["cover"].lower()
    cover = next(cover for cover, names in _COVERS.items() if name in names)
    if found.get("none"):
        return Claim(cover, 0.0, 0.0)
    if found.get("little"):
        return Claim(cover, 0.0, LITTLE)
    text = found["share"].lower()
    if "all" in text:
        return Claim(cover, NEARLY_ALL, 1.0)
    share = float(re.findall(r"\d+", text)[0]) / 100
    return Claim(cover, 0.0, share) if text.startswith("less") else Claim(cover, share, share)


def mentioned_covers(text: str) -> list[str]:
    """Return the covers that a text mentions, by their names in a land-cover map."""
    return [cover for cover, names in _COVERS.items() if _mentions(text, names)]


def _mentions(text: str, names: tuple[str, ...]) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE) for name in names)


def _find_reference(
    cover: str, measured: SpectralIndices | None, cover_map: CoverMap | None
) -> Reference | None:
    name = MEASURED_AS.get(cover, "")
    if measured is not None and name in measured.shares:
        share, error = measured.share(name), measured.error(name)
        visible = share if name == "cloud" else _of_visible(share, measured.share("cloud"))
        doubtful = measured.errors.get(name, 0.0)
        return Reference("measured", cover, share, visible, error, doubtful)
    if cover_map is not None:
        share = cover_map.shares[cover]
        visible = share if cover == "cloud" else _of_visible(share, cover_map.shares["cloud"])
        return Reference("on the map", cover, share, visible, MAP_ERROR, MAP_ERROR)
    if measured is not None and cover == "tree cover":
        share = measured.vegetation
        error = measured.error("dense vegetation", "sparse vegetation")
        visible = _of_visible(share, measured.share("cloud"))
        return Reference("measured", VEGETATION, share, visible, error, error, is_upper_bound=True)
    return None


def _of_visible(share: float, cloud: float) -> float:
    return min(share / max(1 - cloud, 1e-6), 1.0)


def _agrees(claim: Claim, reference: Reference) -> bool:
    """Whether a claim is within the error of a share, and right on whether there is any at all."""
    allowed = reference.error + ROUNDING
    if claim.low > reference.visible + allowed:
        return False
    if reference.is_upper_bound:
        return True
    if claim.high == 0:
        return reference.share - reference.doubtful <= SHARE_IN_VIEW
    if reference.share + reference.doubtful < NOTHING:
        return False
    return claim.high >= reference.share - allowed
