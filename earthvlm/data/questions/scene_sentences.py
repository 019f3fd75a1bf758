"""Sentences about a scene from its labels: descriptions, statements on one cover, search phrases.

A share is always rounded in the same way, and a cover has the same name everywhere, so that the
answers of one conversation agree with each other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from earthvlm.data.labels import QUARTERS, SCENE_NAMES, SceneLabels
from earthvlm.scenes.land_cover import NO_DATA, CoverMap, CoverPart, rounded_percent
from earthvlm.scenes.scene import Scene

# A description mentions land covers above this share of the scene.
MENTIONED = 0.08
# A land cover counts as present above this share of the scene, or see `SceneLabels.shows`.
# Above this share of cloud, the land cover counts as hidden.
HIDDEN = 0.85
VEILED = 0.15
# A cover lies in the quarters that hold more than this part of what the fullest one holds.
FULLEST = 0.5
MAX_PARTS = 9  # counted; above, they are many
# What surrounds a cover has a second name from this share on.
SECOND_AROUND = 0.25
# A long part is a river's if it has this part of the size of the cover's largest part.
RIVER_SHARE = 0.25
# The share of scenes that are paired with their description; the others with a short phrase.
DESCRIBED = 0.35
SEARCHED_AS = {
    "water": ["a lake", "water", "a river", "open water"],
    "tree cover": ["forest", "trees", "woodland", "tree cover"],
    "cropland or grass": ["fields", "farmland", "cropland or grass", "meadows"],
    "bare soil": ["bare soil", "bare fields", "bare ground"],
    "built-up land": ["a town", "buildings", "built-up land", "houses"],
    "sparse vegetation": ["sparse vegetation", "scrubland"],
    "snow or ice": ["snow", "snow and ice", "a snowy landscape"],
    "burnt land": ["burnt land", "a burn scar", "land after a fire"],
}


def describe(labels: SceneLabels) -> str:
    """Describe a scene in sentences: its kind, land cover with shares and places, water, sky."""
    if labels.cloud_share > HIDDEN:
        return "Clouds hide almost all of the scene, so the land cover cannot be told."
    sentences = []
    if labels.scene_class:
        sentences.append(f"The scene looks like {SCENE_NAMES[labels.scene_class]}.")
    shares = labels.shares
    first, *others = mentioned_covers(labels)
    part = "what can be seen" if labels.cloud_share > VEILED else "the scene"
    sentences.append(f"{capital(first)} covers {amount(shares[first])} of {part}.")
    if others:
        sentences.append(f"There is also {listed([with_share(c, shares[c]) for c in others])}.")
    sentences.append(_layout(labels))
    if not labels.shows("water"):
        sentences.append("There is no water in view.")
    elif shares["water"] <= MENTIONED:
        sentences.append("A little water is in view.")
    if labels.shows("cloud") or labels.haze_share > VEILED:
        sentences.append(capital(sky_statement(labels)) + ".")
    return " ".join(sentences)


def describe_in_one_sentence(labels: SceneLabels) -> str:
    """Describe a scene in one sentence: its covers with their shares, and its sky."""
    if labels.cloud_share > HIDDEN:
        return describe(labels)
    covers = mixture(labels)
    clouds = labels.shows("cloud")
    sky = f"; {sky_statement(labels)}" if clouds or labels.haze_share > VEILED else ""
    return f"{capital(covers)}{sky}."


def mixture(labels: SceneLabels) -> str:
    """Return the covers with their shares: "tree cover (80 percent), with water (15 percent)"."""
    shares = labels.shares
    first, *others = mentioned_covers(labels)
    also = f", with {listed([with_share(c, shares[c]) for c in others])}" if others else ""
    return with_share(first, shares[first]) + also


def part_mixture(labels: SceneLabels) -> str:
    """Return a part's covers, the first with its share: "water (60 percent), with bare soil"."""
    first, *others = mentioned_covers(labels)
    return with_share(first, labels.shares[first]) + (f", with {listed(others)}" if others else "")


def mentioned_covers(labels: SceneLabels) -> list[str]:
    """Return the covers that a description mentions, largest first; at least the largest."""
    return [cover for cover, s in labels.shares.items() if s > MENTIONED] or [labels.dominant]


def cover_statement(labels: SceneLabels, cover: str, part: str = "the scene") -> str:
    """State a cover's share: "water covers about 15 percent of the scene", or that there is none.

    part: what the labels are of, "the scene" or "the top left".
    """
    if cover == "cloud":
        return sky_statement(labels)
    if not labels.shows(cover):
        return f"there is no {cover} in {'view' if part == 'the scene' else part}"
    return f"{cover} covers {amount(labels.shares[cover])} of {part}"


def sky_statement(labels: SceneLabels) -> str:
    """State what clouds hide: "clouds hide about 30 percent of the scene"."""
    cloud, haze = labels.cloud_share, labels.haze_share
    if cloud > HIDDEN:
        return "clouds hide almost all of the scene"
    if labels.shows("cloud"):
        return f"clouds hide {amount(cloud)} of the scene"
    if haze > VEILED:
        return "there are no thick clouds, but haze veils a part of the scene"
    return "there are no clouds in view"


def find_quarters(labels: SceneLabels, cover: str) -> list[str]:
    """Return the quarters in which most of a cover lies, of the ground or "cloud"."""
    parts = {name: labels.quarter(name) for name in QUARTERS}
    shares = {
        name: part.cloud_share if cover == "cloud" else part.shares[cover]
        for name, part in parts.items()
    }
    return [name for name, share in shares.items() if share > FULLEST * max(shares.values())]


def count_parts(cover_map: CoverMap, cover: str) -> int | None:
    """Return how many notable parts a cover has; None above MAX_PARTS."""
    count = len(cover_map.notable_parts(cover))
    return count if count <= MAX_PARTS else None


def find_long_part(cover_map: CoverMap, cover: str) -> CoverPart | None:
    """Return the largest long and narrow part of a cover, as a river is, unless it is minor."""
    parts = cover_map.notable_parts(cover)
    least = RIVER_SHARE * parts[0].share if parts else 0
    return next((part for part in parts if part.elongated and part.share >= least), None)


def find_largest_area(cover_map: CoverMap, cover: str, scene: Scene) -> float | None:
    """Return the area of a cover's largest notable part in square metres; None if unknown."""
    parts = cover_map.notable_parts(cover)
    if not parts or scene.pixel_metres is None:
        return None
    known = float((cover_map.classes != NO_DATA).mean())
    return parts[0].share * known * scene.width * scene.height * scene.pixel_metres**2


def find_surroundings(cover_map: CoverMap, cover: str) -> list[str]:
    """Return the one or two covers that lie next to a cover."""
    around = list(cover_map.surroundings(cover).items())[:2]
    return [name for i, (name, share) in enumerate(around) if share > (SECOND_AROUND if i else 0)]


def search_sentence(labels: SceneLabels, rng: random.Random) -> str:
    """Return a sentence that should retrieve the scene: its description, or a short phrase."""
    return describe(labels) if rng.random() < DESCRIBED else short_phrase(labels, rng)


def short_phrase(labels: SceneLabels, rng: random.Random) -> str:
    """Return words that a user might type to find the scene, such as "a lake next to forest"."""
    if labels.cloud_share > HIDDEN:
        return rng.choice(["clouds", "a cloudy scene", "clouds hiding the ground"])
    words, shares = dict(SEARCHED_AS), labels.shares
    if labels.scene_class == "River" and labels.shows("water"):
        words["water"] = ["a river", "a river", "water"]
    elif labels.scene_class == "SeaLake":
        words["water"] = ["a lake", "the sea", "open water"]
    elif shares["water"] > 0.8:
        words["water"] = ["open water", "the sea", "a large lake"]
    if labels.scene_class == "Industrial":
        words["built-up land"] = ["an industrial area", "factories", "large buildings"]
    seen = [c for c, s in shares.items() if s > MENTIONED][:3]
    if labels.shows("water") and shares["water"] <= MENTIONED and rng.random() < 0.5:
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


def _layout(labels: SceneLabels) -> str:
    """Say which land cover dominates which quarters."""
    dominants: dict[str, list[str]] = {}
    for name in QUARTERS:
        quarter = labels.quarter(name)
        seen = "cloud" if quarter.cloud_share > HIDDEN else quarter.dominant
        dominants.setdefault(seen, []).append(name)
    if len(dominants) == 1:
        return f"{capital(next(iter(dominants)))} dominates every quarter."
    parts = [
        f"{cover} {'hides' if cover == 'cloud' else 'dominates'} the {listed(names)}"
        for cover, names in dominants.items()
    ]
    return f"{capital('; '.join(parts))}."


def amount(share: float) -> str:
    """Say a share in words: "about 35 percent", "nearly all", "less than 1 percent"."""
    if share > 0.975:
        return "nearly all"
    percent = rounded_percent(share)
    return f"about {percent} percent" if percent else "less than 1 percent"


def with_share(cover: str, share: float) -> str:
    """Return a cover with its share in brackets: "water (35 percent)"."""
    return f"{cover} ({amount(share).removeprefix('about ')})"


def listed(items: Sequence[str]) -> str:
    """Join as in "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def capital(text: str) -> str:
    """Return a text with a capital first letter."""
    return text[0].upper() + text[1:]
