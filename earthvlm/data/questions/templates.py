"""Wordings of questions about land cover and clouds. `{cover}` and `{place}` are filled in."""

from __future__ import annotations

DESCRIBE = (
    "Describe this scene.",
    "Describe the land use.",
    "Describe the land cover of this scene.",
    "Describe this image.",
    "What do you see?",
    "What can be seen in this satellite image?",
    "What is in this image?",
    "What is shown here?",
    "Describe this satellite image in detail.",
    "Tell me about this place.",
    "Give a caption for this scene.",
    "What does this area look like?",
    "What's in the picture?",
    "What's this?",
    "What is this?",
    "Whats here?",
    "Anything interesting?",
    "What do we have here?",
    "Explain what this image shows.",
    "Give me an overview of the scene.",
)
ONE_SENTENCE = (
    "Describe this scene in one sentence.",
    "In one sentence, what is shown here?",
    "Summarise the scene in one sentence.",
    "Give me one sentence about this image.",
    "What is here? One sentence, please.",
    "Caption it in a single sentence.",
    "Describe the land cover in one short sentence.",
    "What kind of landscape is this, in one sentence?",
)
DOMINANT = (
    "Which land cover dominates?",
    "What is the dominant land cover?",
    "What is the main land cover?",
    "What covers most of the scene?",
    "What is mostly here?",
    "Which type of land is most common?",
    "What dominates?",
    "What is there most of?",
    "What's the most common land cover here?",
    "Which land cover is the largest?",
    "What takes up most of the image?",
    "What is the main type of land?",
)
SECOND = (
    "What is the second largest land cover?",
    "Which cover is the second most common?",
    "What is the second most common type of land?",
    "Which land cover comes second?",
)
SMALLEST = (
    "What is there least of?",
    "Which land cover is the smallest?",
    "Which of the covers in view is the rarest?",
    "What covers the least of the scene?",
)
# Presence, by the grammar of the noun: "water", "lakes", "a lake".
PRESENT = (
    "Is there {cover}?",
    "Is there any {cover}?",
    "Is there any {cover} in this scene?",
    "Is there some {cover} here?",
    "Do you see {cover}?",
    "Do you see any {cover}?",
    "Can you see {cover}?",
    "Is {cover} visible?",
    "Is any {cover} in view?",
    "Does this scene contain {cover}?",
    "Does the image show {cover}?",
    "Any {cover}?",
    "{cover}?",
    "{cover} here?",
    "Tell me whether there is {cover}.",
    "Check if there is any {cover}.",
    "Is it true that there is {cover} here?",
    "There is {cover} here, right?",
)
PRESENT_PLURAL = (
    "Are there {cover}?",
    "Are there any {cover}?",
    "Are there any {cover} in this scene?",
    "Do you see {cover}?",
    "Do you see any {cover}?",
    "Can you see {cover}?",
    "Are {cover} visible?",
    "Does this scene contain {cover}?",
    "Does the image show any {cover}?",
    "Any {cover}?",
    "{cover}?",
    "Tell me whether there are {cover}.",
)
PRESENT_SINGULAR = (
    "Is there {cover}?",
    "Is there {cover} in this scene?",
    "Do you see {cover}?",
    "Can you see {cover}?",
    "Does this scene contain {cover}?",
    "Does the image show {cover}?",
)
ABSENT = (
    "Is it free of {cover}?",
    "Is the scene free of {cover}?",
    "Is the scene without {cover}?",
    "Is this place without any {cover}?",
    "Is {cover} absent?",
    "Is it true that there is no {cover}?",
    "There is no {cover} here, right?",
    "Is the image entirely free of {cover}?",
    "Does the scene lack {cover}?",
)
ABSENT_PLURAL = (
    "Is it free of {cover}?",
    "Is the scene without any {cover}?",
    "Is it true that there are no {cover}?",
    "There are no {cover} here, right?",
)
WATER = (
    "Is there water?",
    "Is there a lake, a river or the sea?",
    "Do you see a lake or a river?",
)
BUILT_UP = (
    "How much is built up?",
    "How much of the scene is built-up land?",
    "How urban is this place?",
    "How much of it is covered by buildings and roads?",
    "How built-up is it?",
)
SHARE = (
    "How much {cover} is there?",
    "How much of the scene is {cover}?",
    "What share is {cover}?",
    "What percentage of the scene is {cover}?",
    "What fraction of the image is {cover}?",
    "How many percent {cover}?",
    "How much {cover}?",
    "What part of the area is {cover}?",
    "How large is the share of {cover}?",
    "How much of it is covered by {cover}?",
    "How big is the area of {cover}?",
    "How many hectares of {cover} are there?",
)
MOSTLY = (
    "Is it mostly {cover}?",
    "Is most of the scene {cover}?",
    "Does {cover} dominate?",
    "Is {cover} the main land cover?",
    "Is the dominant land cover {cover}?",
)
# Thresholds, with the share that each is about.
MORE_THAN = {
    "Is more than half of it {cover}?": 0.5,
    "Does {cover} cover more than half of the scene?": 0.5,
    "Is more than a quarter of the scene {cover}?": 0.25,
    "Does {cover} cover over 10 percent?": 0.1,
}
# Names that people use for a cover, by their grammar: without an article, plural, singular.
SYNONYMS = {
    "water": ("water", "open water"),
    "tree cover": ("tree cover", "forest", "woodland"),
    "cropland or grass": ("cropland or grass", "farmland", "grassland", "cropland"),
    "bare soil": ("bare soil", "bare ground", "bare land"),
    "built-up land": ("built-up land", "urban land", "built-up area"),
    "sparse vegetation": ("sparse vegetation", "scrubland"),
    "snow or ice": ("snow or ice", "snow", "ice", "snow cover"),
    "burnt land": ("burnt land", "burned land", "burnt ground", "fire damage"),
}
PLURALS = {
    "water": ("lakes", "ponds", "water bodies", "lakes or rivers"),
    "tree cover": ("trees", "forests", "woods"),
    "cropland or grass": ("fields", "meadows", "crops", "farm fields", "pastures"),
    "bare soil": ("bare fields", "patches of bare ground"),
    "built-up land": ("buildings", "houses", "towns or villages", "settlements"),
    "sparse vegetation": ("shrubs", "patches of scrub"),
    "snow or ice": ("patches of snow", "snowfields"),
    "burnt land": ("burnt areas", "burn scars", "signs of a fire"),
}
SINGULARS = {
    "water": ("a lake", "a reservoir", "the sea", "a body of water"),
    "tree cover": ("a forest", "a wood"),
    "cropland or grass": ("a field", "a meadow"),
    "bare soil": ("a bare field",),
    "built-up land": ("a town", "a village", "a city", "a settlement", "a building"),
    "sparse vegetation": ("a patch of scrub",),
    "snow or ice": ("a snowfield",),
    "burnt land": ("a burn scar", "a burnt area"),
}
PLACE = (
    "What is in the {place}?",
    "What fills the {place}?",
    "What fills the {place} quarter?",
    "What is in the {place} part?",
    "Which land cover dominates the {place}?",
    "What can you see in the {place} of the image?",
    "What covers the {place} quarter?",
    "What's in the {place} quarter?",
    "Tell me about the {place}.",
)
ON_SIDE = ("What is on the {place}?", "What do you see on the {place}?", "What's on the {place}?")
TO_COMPASS = (
    "What is in the {place}?",
    "What's to the {place}?",
    "What lies in the {place}?",
    "What do you see in the {place}?",
)
HALVES = ("top half", "bottom half", "left half", "right half")
COMPASS = ("north", "south", "east", "west")
# Quarters and halves by the names that people give them; the plain one most often.
PLACE_NAMES = {
    "top left": (*["top left"] * 4, "upper left", "north-west", "northwest"),
    "top right": (*["top right"] * 4, "upper right", "north-east", "northeast"),
    "bottom left": (*["bottom left"] * 4, "lower left", "south-west", "southwest"),
    "bottom right": (*["bottom right"] * 4, "lower right", "south-east", "southeast"),
    "top half": ("top half", "upper half", "northern half", "north", "north"),
    "bottom half": ("bottom half", "lower half", "southern half", "south", "south"),
    "left half": ("left half", "left side", "left side", "western half", "west", "west"),
    "right half": ("right half", "right side", "right side", "eastern half", "east", "east"),
}
# Ninths by the names that people give them; corners say that they are smaller than quarters.
FIELD_NAMES = {
    "top left": ("top left corner", "top left ninth"),
    "top": ("top middle", "middle of the top edge", "top centre"),
    "top right": ("top right corner", "top right ninth"),
    "left": ("middle left", "middle of the left edge"),
    "centre": ("centre", "middle", "center", "very middle"),
    "right": ("middle right", "middle of the right edge"),
    "bottom left": ("bottom left corner", "bottom left ninth"),
    "bottom": ("bottom middle", "middle of the bottom edge", "bottom centre"),
    "bottom right": ("bottom right corner", "bottom right ninth"),
}
IN_FIELD = (
    "What is in the {place}?",
    "What fills the {place}?",
    "What covers the {place}?",
    "Which land cover is in the {place}?",
    "What do you see in the {place}?",
    "What's in the {place} of the scene?",
)
PRESENT_IN = (
    "Is there {cover} in the {place}?",
    "Is there any {cover} in the {place}?",
    "Do you see {cover} in the {place}?",
    "Does the {place} have {cover}?",
    "Is the {cover} in the {place}?",
    "Any {cover} in the {place}?",
)
WHERE = (
    "Where is the {cover}?",
    "Where do you see {cover}?",
    "In which part is the {cover}?",
    "Where can I find {cover}?",
    "Which quarter has the {cover}?",
    "Where's the {cover}?",
    "Which side is the {cover} on?",
    "Show me where the {cover} is.",
    "In which part of the image is there {cover}?",
)
WHERE_PLURAL = (
    "Where are the {cover}?",
    "Where do you see {cover}?",
    "In which part are the {cover}?",
    "Where can I find {cover}?",
    "Which quarter has the {cover}?",
    "Which side are the {cover} on?",
    "Show me where the {cover} are.",
)
SCENE_CLASS = (
    "Which scene is it?",
    "What kind of scene is this?",
    "What kind of place is this?",
    "How would you classify this scene?",
)
CLOUDS = (
    "Are there clouds?",
    "Is it cloudy?",
    "Do you see any clouds?",
    "Can you see clouds?",
    "Is there any cloud?",
    "Is the view blocked by clouds?",
    "Are clouds in the way?",
    "Any clouds?",
    "Clouds?",
    "Is it clouded over?",
)
CLEAR = (
    "Is the sky clear?",
    "Is it free of clouds?",
    "Is the scene cloud-free?",
    "Is it a cloudless image?",
    "Is it a clear day?",
)
CLOUD_SHARE = (
    "How much of the scene is hidden by clouds?",
    "How cloudy is it?",
    "How many percent of clouds are there?",
    "What share is cloud?",
    "How much cloud is there?",
)
HAZE = ("Is there haze?", "Is it hazy?", "Do you see haze or thin cloud?", "Is there any mist?")
COMPARE = (
    "Is there more {a} or {b}?",
    "Which covers more, {a} or {b}?",
    "What is there more of, {a} or {b}?",
    "{a} or {b}: which is larger?",
)
MORE = (
    "Is there more {a} than {b}?",
    "Does {a} cover more than {b}?",
    "Is the share of {a} larger than that of {b}?",
)
ALL_COVERS = (
    "List the land covers with their shares.",
    "What are the percentages of the land covers?",
    "Break the land cover down.",
    "Which land covers are there?",
    "Give me the shares of all land covers.",
)
# Short questions that refer to the one before.
NEXT = (
    "And after that?",
    "And then?",
    "What comes next?",
    "And the next?",
    "What else is there a lot of?",
)
AND_SECOND = ("And the second most?", "And the second?", "What comes second?", *NEXT)
OTHER_COVER = ("And {cover}?", "What about {cover}?", "And is there {cover}?", "How about {cover}?")
WHERE_IT_IS = ("Where?", "Where is it?", "And where?", "In which part?", "Where exactly?")
HOW_MUCH = ("How much?", "How much of it?", "And how much is it?", "How much is that in percent?")
SURE = ("Are you sure?", "Really?", "Is that certain?", "Are you certain?", "Sure?")
WHY = ("Why?", "How do you know?", "Why do you think so?", "What makes you say that?")
