"""The scenes that the Chat tab offers for a start."""

from __future__ import annotations

from earthvlm.search.index import SceneIndex, SceneResult
from earthvlm.serving.measurements import summarize_measurements
from earthvlm.serving.service import OpenScene
from earthvlm.ui.html.titles import make_title

EXAMPLE_COUNT = 8
# A dataset may have a split of scenes chosen to start with; these searches fill up the row.
EXAMPLE_SPLIT = "examples"
EXAMPLE_SEARCHES = (
    "a lake",
    "dense forest",
    "a village with houses and streets",
    "crop fields in large parcels",
    "open water",
    "a city, built-up land everywhere",
    "a river through meadows",
    "haze or cloud over the land",
)


def choose_examples(index: SceneIndex) -> list[SceneResult]:
    """Pick scenes for a start that can be opened: the dataset's examples, then unlike finds."""
    finds = list(index.browse(EXAMPLE_SPLIT)) if EXAMPLE_SPLIT in index.splits else []
    for words in EXAMPLE_SEARCHES:
        found = {result.image_id for result in finds}
        finds += [r for r in index.search(words, k=len(finds) + 1) if r.image_id not in found][:1]
    return [result for result in finds if result.scene_file is not None][:EXAMPLE_COUNT]


def describe_example(opened: OpenScene) -> str:
    """A sentence on an example scene: what it is, when, and what was measured in it."""
    return f"{make_title(opened.scene)}. {summarize_measurements(opened.measurements)}."
