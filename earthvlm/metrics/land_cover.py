"""Find the land covers that a text mentions."""

from __future__ import annotations

import re

from earthvlm.data.labels import LAND_COVER

# WorldCover's classes, from which ChatEarthNet's captions were written, and words for them.
CAPTIONED_COVER = {
    "water": r"waters?|lakes?|rivers?|seas?|oceans?|ponds?|reservoirs?",
    "developed area": r"developed|built-up|urban|buildings?|towns?|cit(?:y|ies)|residential",
    "tree": r"trees?|forests?|forested|wood(?:ed|s|lands?)",
    "shrub": r"shrubs?|shrublands?|bush(?:es)?",
    "grass": r"grass(?:es|y|lands?)?|meadows?",
    "crop": r"crops?|croplands?|farmlands?|agricultural|agriculture|fields?",
    "bare land": r"bare|barren",
    "snow": r"snow|ice",
    "wetland": r"wetlands?|marsh(?:es)?",
    "mangroves": r"mangroves?",
    "moss": r"moss(?:es)?|lichens?",
}
_NEGATED = re.compile(r"\b(?:no|without|absence of|lack of)\s+(?:any\s+|visible\s+)*[\w-]+")


def mentioned_land_cover(answer: str) -> list[str]:
    """Return the classes of `LAND_COVER` that an answer mentions as present, in its order."""
    text = answer.lower()
    for cover in LAND_COVER:
        text = text.replace(f"no {cover}", "")
    positions = {cover: text.find(cover) for cover in LAND_COVER if cover in text}
    return sorted(positions, key=positions.__getitem__)


def captioned_land_cover(text: str) -> set[str]:
    """Return the classes of `CAPTIONED_COVER` that a text mentions as present."""
    text = _NEGATED.sub("", text.lower())
    return {c for c, words in CAPTIONED_COVER.items() if re.search(rf"\b(?:{words})\b", text)}
