"""Questions about a scene's file, about the parts of its map, and those that no scene answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from earthvlm.data.questions.asked_questions import Asked, Known
from earthvlm.data.questions.land_cover import choose_cover
from earthvlm.data.questions.scene_sentences import (
    HIDDEN,
    count_parts,
    find_largest_area,
    find_long_part,
    find_surroundings,
    listed,
)
from earthvlm.data.questions.unanswerable import (
    ASK_IN_ENGLISH,
    FEATURES,
    FEATURES_IN_PLURAL,
    NOT_MAPPED,
    ONE_FEATURE,
    OTHER_LANGUAGES,
    UNANSWERABLE_QUESTIONS,
)
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.places.formatting import (
    describe_area,
    describe_climate,
    describe_date,
    describe_place,
    describe_size,
    season,
)
from earthvlm.scenes.scene import Scene

DATE = (
    "When was this taken?",
    "What is the date of this image?",
    "On which day was it taken?",
    "How old is this image?",
    "Which year is it?",
    "In which month was it taken?",
    "What's the date?",
    "When is this from?",
)
SEASON = (
    "Which season is it?",
    "What time of the year is it?",
    "Is it summer or winter?",
    "In which season was it taken?",
    "Is this winter?",
)
COORDINATES = (
    "Where is this?",
    "Where on Earth is it?",
    "What are the coordinates?",
    "Where was this taken?",
    "What is the latitude and longitude?",
    "Which part of the world is this?",
)
HEMISPHERE = (
    "Which hemisphere is it in?",
    "Is it north or south of the equator?",
    "Which climate belt is it in?",
    "Is this place in the tropics?",
    "What climate does it have?",
)
SIZE = (
    "How large is the area?",
    "How big is this scene?",
    "How many kilometres across is it?",
    "What is the size of the scene?",
    "How wide is the image in kilometres?",
    "What area does it cover?",
)
BANDS_PRESENT = (
    "Which bands does it have?",
    "How many bands are there?",
    "Is there an infrared band?",
    "Is it a true-colour photo?",
    "What spectral bands do you have?",
)
COUNT = (
    "How many {cover} are there?",
    "How many {cover} can you count?",
    "How many {cover} do you see?",
    "Count the {cover}.",
    "How many separate {cover} are in view?",
)
COUNTED_AS = {
    "water": ("lakes", "water bodies", "ponds", "lakes or ponds"),
    "built-up land": ("towns", "villages", "settlements"),
    "snow or ice": ("patches of snow", "snowfields"),
    "burnt land": ("burnt areas", "burn scars"),
}
SHAPE = (
    "What shape is the {cover}?",
    "Is the {cover} round or long?",
    "Is the {cover} compact or elongated?",
    "What form does the {cover} have?",
)
SHAPED = {
    "water": ("water", "lake", "largest body of water"),
    "built-up land": ("town", "settlement", "built-up area"),
    "burnt land": ("burnt area", "burn scar"),
}
AREA = (
    "How big is the {cover}?",
    "How large is the {cover}?",
    "How big is the {cover}?",
    "What is the area of the {cover}?",
    "How many hectares is the {cover}?",
    "What size is the {cover}?",
    "How big is the largest {cover}?",
)
MEASURED_ON_MAP = {
    "water": ("lake", "lake", "reservoir", "pond", "body of water"),
    "built-up land": ("town", "village", "city", "settlement"),
    "burnt land": ("burnt area", "burn scar", "fire"),
}
DIRECTION = (
    "Which way does the river run?",
    "In which direction does the river flow?",
    "From where to where does the river go?",
    "Where does the river come from?",
    "How does the river run through the scene?",
)
RIVER = ("Is there a river?", "Do you see a river?", "Does a river cross it?", "Any rivers?")
SURROUND = (
    "What surrounds the {cover}?",
    "What is around the {cover}?",
    "What lies next to the {cover}?",
    "What is beside the {cover}?",
    "What borders the {cover}?",
)
NO_DATE = "The date is not given with this scene."
NO_PLACE = "The place is not given with this scene."
NO_SIZE = "The size is not given with this scene."


def ask_date(known: Known, rng: random.Random) -> Asked:
    """Ask for the date or the season."""
    scene = known.scene
    asks_season = rng.random() < 0.4
    question = rng.choice(SEASON if asks_season else DATE)
    if scene is None or scene.date is None:
        return Asked(question, NO_DATE)
    taken = f"It was taken on {describe_date(scene.date)}."
    if not asks_season:
        return Asked(question, taken)
    name = season(scene.date, scene.latitude)
    if name is not None:
        return Asked(question, f"It is {name}. {taken}")
    reason = NO_PLACE if scene.latitude is None else "The tropics have no summer and winter."
    return Asked(question, f"{reason} {taken}")


def ask_coordinates(known: Known, rng: random.Random) -> Asked:
    """Ask for the place or its climate."""
    scene = known.scene
    asks_climate = rng.random() < 0.4
    question = rng.choice(HEMISPHERE if asks_climate else COORDINATES)
    if scene is None or scene.latitude is None or scene.longitude is None:
        return Asked(question, NO_PLACE)
    place = describe_place(scene.longitude, scene.latitude, decimals=1)
    if not asks_climate:
        return Asked(question, f"At {place}. I do not know the names of places.")
    half = "northern" if scene.latitude > 0 else "southern"
    belt = describe_climate(scene.latitude)
    return Asked(question, f"It is {belt}, in the {half} hemisphere, at {place}.")


def ask_size(known: Known, rng: random.Random) -> Asked:
    """Ask for the size of the scene on the ground."""
    scene = known.scene
    size = scene and describe_size(scene.width, scene.height, scene.pixel_metres)
    return Asked(rng.choice(SIZE), f"It is {size}." if size else NO_SIZE)


def ask_bands(known: Known, rng: random.Random) -> Asked | None:
    """Ask which bands the scene has."""
    if known.scene is None:
        return None
    return Asked(rng.choice(BANDS_PRESENT), describe_bands(known.scene))


def describe_bands(scene: Scene) -> str:
    """Say which bands a scene has."""
    if scene.is_rgb_only:
        return "It has red, green and blue only."
    infrared = scene.find_band("B08") is not None
    return f"It has {len(scene.bands)} bands{', in colour and infrared' if infrared else ''}."


def _on_map(
    covers: dict[str, tuple[str, ...]],
    wordings: tuple[str, ...],
    answer: Callable[[CoverMap, str], str],
) -> Callable[[Known, random.Random], Asked | None]:
    """Make a question about the parts of a cover, which the prompt's context states."""

    def ask(known: Known, rng: random.Random) -> Asked | None:
        labels, predicted = known.labels, known.labels.predicted_map
        if not known.has_map or predicted is None or labels.cloud_share > HIDDEN:
            return None
        cover = choose_cover(labels, rng, in_view=0.75, covers=list(covers))
        if labels.shows(cover) != predicted.shows(cover):
            return None
        question = rng.choice(wordings).format(cover=rng.choice(covers[cover]))
        if not labels.shows(cover):
            return Asked(question, f"There is no {cover} in view.", cover)
        return Asked(question, answer(predicted, cover), cover)

    return ask


def state_count(cover_map: CoverMap, cover: str) -> str:
    """Say how many separate parts a cover has."""
    count = count_parts(cover_map, cover)
    if count is None:
        return f"The map shows many separate parts of {cover}."
    if not count:
        return f"The map shows {cover} in small patches only."
    return f"The map shows {count} separate part{'s' if count > 1 else ''} of {cover}."


def state_shape(cover_map: CoverMap, cover: str) -> str:
    """Say whether the largest part of a cover is compact or long."""
    parts = cover_map.notable_parts(cover)
    if not parts:
        return f"The map shows {cover} in small patches only."
    return (
        f"The largest part of {cover} is {'long and narrow' if parts[0].elongated else 'compact'}."
    )


def ask_area(known: Known, rng: random.Random) -> Asked | None:
    """Ask how large a lake, a town or a burnt area is, where the prompt tells the pixels' size."""
    scene = known.scene
    if scene is None or scene.pixel_metres is None:
        return None
    return _on_map(MEASURED_ON_MAP, AREA, partial(state_area, scene=scene))(known, rng)


def state_area(cover_map: CoverMap, cover: str, scene: Scene) -> str:
    """Say how large the largest part of a cover is on the ground."""
    area = find_largest_area(cover_map, cover, scene)
    if area is None:
        return f"The map shows {cover} in small patches only."
    return f"The largest part of {cover} covers about {describe_area(area)}."


def state_direction(cover_map: CoverMap, cover: str) -> str:
    """Say between which sides a long part of a cover runs, if there is one."""
    river = find_long_part(cover_map, cover)
    if river is None:
        return f"No long and narrow part of {cover} is in view."
    start, end = river.ends
    return f"It runs between the {start} and the {end}; which way it flows cannot be seen."


def state_river(cover_map: CoverMap, cover: str) -> str:
    """Say whether water has the form of a river."""
    river = find_long_part(cover_map, cover)
    if river is None:
        return f"There is {cover} in view, but no long and narrow part of it."
    start, end = river.ends
    return f"Yes, a long and narrow part of {cover} runs between the {start} and the {end}."


def state_surroundings(cover_map: CoverMap, cover: str) -> str:
    """Say which covers lie next to a cover."""
    names = find_surroundings(cover_map, cover)
    return f"Mostly {listed(names)}." if names else f"Nothing: {cover} fills the scene."


_RIVERS: dict[str, tuple[str, ...]] = {"water": ("river",)}
ask_count = _on_map(COUNTED_AS, COUNT, state_count)
ask_shape = _on_map(SHAPED, SHAPE, state_shape)
ask_direction = _on_map(_RIVERS, DIRECTION, state_direction)
ask_river = _on_map(_RIVERS, RIVER, state_river)
ask_surroundings = _on_map(SHAPED, SURROUND, state_surroundings)


def ask_beyond(known: Known, rng: random.Random) -> Asked:
    """Ask what no scene answers, or about the model itself."""
    answer, questions = rng.choice(tuple(UNANSWERABLE_QUESTIONS.items()))
    return Asked(rng.choice(questions), answer)


def ask_feature(known: Known, rng: random.Random) -> Asked:
    """Ask for something that land cover does not tell, such as a beach or an airport."""
    name, names = rng.choice(FEATURES)
    article = "an" if name[0] in "aeiou" else "a"
    form = rng.choice(ONE_FEATURE if rng.random() < 0.7 else FEATURES_IN_PLURAL)
    return Asked(form.format(a=article, name=name, names=names), NOT_MAPPED)


def ask_in_another_language(known: Known, rng: random.Random) -> Asked:
    """Ask in another language than English."""
    return Asked(rng.choice(rng.choice(OTHER_LANGUAGES)), ASK_IN_ENGLISH)
