"""A small index with known places, for tests of the map."""

from __future__ import annotations

import datetime
from pathlib import Path

from earthvlm.embeddings.dataset import write_embedding_dataset
from earthvlm.search.index import SceneIndex
from tests.support.made_scenes import PROVENANCE, make_rows


def make_world_index(folder: Path) -> SceneIndex:
    """Index five scenes near Berlin (two at one place), one in Fiji, and one without a place."""
    rows = make_rows(7)
    for number, row in enumerate(rows):
        row |= {"longitude": 12.0 + number, "latitude": 52.0, "date": datetime.date(2020, 1, 1)}
    rows[1] |= {"longitude": 12.0}
    rows[5] |= {"longitude": 179.5, "latitude": -17.0}
    rows[6] |= {"longitude": None, "latitude": None}
    write_embedding_dataset(folder, rows, *PROVENANCE)
    return SceneIndex.from_pretrained(folder)
