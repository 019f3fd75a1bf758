"""Questions that put land covers together: plants, land and water, town or country, two sides."""

from __future__ import annotations

import random

from earthvlm.data.labels import LAND_COVER, SceneLabels
from earthvlm.data.questions import templates
from earthvlm.data.questions.asked_questions import Asked, Known, asked_of_scene
from earthvlm.data.questions.land_cover import choose_cover, presence
from earthvlm.data.questions.scene_sentences import (
    capital,
    cover_statement,
    listed,
    with_share,
)

PLANTS = ("tree cover", "cropland or grass", "sparse vegetation")
# A scene is urban from the second share of built-up land on, and rural up to the first.
RURAL, URBAN = 0.2, 0.4
# Whether more or less than a half is water, or plants, is not asked where it is this close to it.
TOO_EVEN = 0.08
VEGETATION = (
    "Is there vegetation?",
    "Is there any vegetation here?",
    "Are there plants?",
    "Is it green?",
    "Does anything grow here?",
    "Is there any greenery?",
)
HOW_GREEN = (
    "How green is it?",
    "How much vegetation is there?",
    "How much of it is green?",
    "What grows here?",
    "What kind of vegetation is there?",
)
MOSTLY_GREEN = (
    "Is it mostly green?",
    "Is most of it green?",
    "Is it mostly vegetation?",
    "Is more than half of it green?",
    "Do plants cover most of it?",
)
RURAL_OR_URBAN = (
    "Is it a rural or an urban area?",
    "Is this urban or rural?",
    "Is it town or country?",
    "Is this in a city or in the countryside?",
)
IS_URBAN = ("Is it urban?", "Is this an urban area?", "Is it a built-up area?", "Is this a city?")
IS_RURAL = ("Is it rural?", "Is this the countryside?", "Is this a rural area?")
WATER_OR_LAND = (
    "Is there more water or land?",
    "Is it mostly land or water?",
    "More land or more water?",
    "Which is larger, the land or the water?",
    "Is this on land or at sea?",
)
HOW_MUCH_LAND = (
    "How much land is there?",
    "What percent is not water?",
    "How much of it is dry land?",
    "How much of the scene is land?",
)
SIDES = (
    "Compare the left and the right.",
    "What is the difference between left and right?",
    "How do the left and right halves differ?",
    "Compare the two halves.",
    "Is the left side different from the right side?",
)
TOP_AND_BOTTOM = (
    "Compare the top and the bottom.",
    "What is the difference between top and bottom?",
    "How do the top and bottom halves differ?",
    "Compare the north and the south.",
)
NAME_THREE = (
    "Name three things you see.",
    "Name the things you see.",
    "What are the main features?",
    "Which land covers do you see?",
    "What kinds of land are there?",
    "List what you see.",
)
# Questions about one cover that do not name it as a noun.
PRESENT_OTHERWISE = {
    "water": ("Is any of it under water?", "Is there something to swim in?", "Does it have water?"),
    "tree cover": ("Is it wooded?", "Is it forested?", "Does a forest grow here?"),
    "cropland or grass": (
        "Is there any farming here?",
        "Is the land farmed?",
        "Is there agriculture?",
        "Is it farmland?",
    ),
    "bare soil": ("Is the ground bare?", "Is any of the soil bare?"),
    "built-up land": ("Do people live here?", "Does anyone live here?", "Is anything built here?"),
    "sparse vegetation": ("Is the vegetation sparse?",),
    "snow or ice": ("Is it snowy?", "Has it snowed?", "Is the ground white with snow?"),
    "burnt land": (
        "Was there a fire?",
        "Has it burnt?",
        "Did it burn here?",
        "Is the land burnt?",
        "Are there traces of fire?",
    ),
}
COVERS_WHOLE = (
    "Is the whole picture covered by {cover}?",
    "Is it all {cover}?",
    "Is everything {cover}?",
    "Is the whole scene {cover}?",
    "Is there nothing but {cover}?",
)
# The whole scene is one cover from the second share on, and surely not below the first.
ALMOST_WHOLE, WHOLE = 0.93, 0.975
NO_PLANTS = "there are no plants in view"
MOST_NAMED = 3


def ask_vegetation(known: Known, rng: random.Random) -> Asked:
    """Ask whether there are plants, how much, or whether they cover most of the scene."""
    seen = [with_share(c, s) for c, s in known.labels.shares.items() if _grows(known.labels, c)]
    share = sum(known.labels.shares[cover] for cover in PLANTS)
    if rng.random() < 0.3 and abs(share - 0.5) > TOO_EVEN:
        answer = f"{'Yes' if share > 0.5 else 'No'}, {listed(seen) if seen else NO_PLANTS}."
        return asked_of_scene(known.labels, rng.choice(MOSTLY_GREEN), answer)
    if rng.random() < 0.5:
        answer = f"Yes, {listed(seen)}." if seen else f"No, {NO_PLANTS}."
        return asked_of_scene(known.labels, rng.choice(VEGETATION), answer)
    answer = f"{capital(listed(seen) if seen else NO_PLANTS)}."
    return asked_of_scene(known.labels, rng.choice(HOW_GREEN), answer)


def _grows(labels: SceneLabels, cover: str) -> bool:
    return cover in PLANTS and labels.shows(cover)


def ask_urban(known: Known, rng: random.Random) -> Asked:
    """Ask whether a place is rural or urban."""
    share = known.labels.shares["built-up land"]
    statement = cover_statement(known.labels, "built-up land")
    kind = "Urban" if share > URBAN else "Partly urban" if share > RURAL else "Rural"
    questions, word = rng.choice(
        (
            (RURAL_OR_URBAN, kind),
            (IS_URBAN, {"Urban": "Yes", "Rural": "No"}.get(kind, "Partly")),
            (IS_RURAL, {"Urban": "No", "Rural": "Yes"}.get(kind, "Partly")),
        )
    )
    answer = f"{word}, {statement}."
    return asked_of_scene(known.labels, rng.choice(questions), answer, "built-up land", statement)


def ask_land(known: Known, rng: random.Random) -> Asked | None:
    """Ask whether there is more land or more water, or how much land there is."""
    share, statement = known.labels.shares["water"], cover_statement(known.labels, "water")
    if rng.random() < 0.5:
        answer = "All of it: " if not known.labels.shows("water") else "All but the water: "
        question = rng.choice(HOW_MUCH_LAND)
        return asked_of_scene(known.labels, question, f"{answer}{statement}.", "water", statement)
    if abs(share - 0.5) < TOO_EVEN:
        return None
    more = "water" if share > 0.5 else "land"
    answer = f"Mostly {more}: {statement}."
    return asked_of_scene(known.labels, rng.choice(WATER_OR_LAND), answer, "water", statement)


def ask_sides(known: Known, rng: random.Random) -> Asked:
    """Ask how two halves differ."""
    sides = rng.choice((("left", "right"), ("top", "bottom")))
    question = rng.choice(SIDES if "left" in sides else TOP_AND_BOTTOM)
    covers = [known.labels.quarter(f"{side} half").dominant for side in sides]
    if covers[0] == covers[1]:
        answer = f"Both are mostly {covers[0]}."
    else:
        first, second = (f"the {s} is mostly {c}" for s, c in zip(sides, covers, strict=True))
        answer = f"{capital(first)}, {second}."
    return asked_of_scene(known.labels, question, answer)


def ask_three_things(known: Known, rng: random.Random) -> Asked:
    """Ask for the names of the largest covers."""
    labels = known.labels
    seen = [cover for cover in labels.shares if labels.shows(cover)][:MOST_NAMED]
    answer = f"{capital(listed(seen or [labels.dominant]))}."
    return asked_of_scene(labels, rng.choice(NAME_THREE), answer)


def ask_present_otherwise(known: Known, rng: random.Random) -> Asked:
    """Ask whether there is a cover without naming it."""
    cover = choose_cover(known.labels, rng)
    return presence(known.labels, cover, rng.choice(PRESENT_OTHERWISE[cover]))


def ask_whole(known: Known, rng: random.Random) -> Asked | None:
    """Ask whether one cover fills the whole scene."""
    labels = known.labels
    main, share = next(iter(labels.shares.items()))
    cover = main if rng.random() < 0.7 else rng.choice(LAND_COVER)
    if cover == main and ALMOST_WHOLE < share < WHOLE:
        return None
    name = rng.choice(templates.SYNONYMS[cover])
    statement = cover_statement(labels, cover)
    answer = f"{'Yes' if labels.shares[cover] >= WHOLE else 'No'}, {statement}."
    question = rng.choice(COVERS_WHOLE).format(cover=name)
    return asked_of_scene(labels, question, answer, cover, statement)
