"""SceneResult: a scene of an index, and SearchResults: the scenes that one search found."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from earthvlm.embeddings.dataset import decode_thumbnail
from earthvlm.scenes.scene import Scene


@dataclass(frozen=True, eq=False)
class SceneResult:
    """A scene of an index. Similarities are cosines, None where nothing was compared.

    A rank is the place, from 1, among the scenes compared in that way, None beyond RANK_DEPTH.
    caption: of words and the caption. scene: of words, or else the example, and the scene itself.
    example: of an example given beside words, and the scene itself.
    score: the sum over the ranks of 1 / (60 + rank); 0 where it was not searched for.
    scene_file: the GeoTIFF with all its bands, None where the dataset does not hold it.
    """

    image_id: str
    caption: str | None
    split: str
    longitude: float | None
    latitude: float | None
    source: str | None
    thumbnail: Image.Image | None
    scene_file: Path | None
    score: float = 0.0
    caption_similarity: float | None = None
    scene_similarity: float | None = None
    example_similarity: float | None = None
    caption_rank: int | None = None
    scene_rank: int | None = None
    example_rank: int | None = None
    date: datetime.date | None = None

    def open_scene(self) -> Scene:
        """Open the scene with all its bands; ValueError if the dataset does not have them."""
        if self.scene_file is None:
            raise ValueError(
                f"The dataset has a thumbnail of {self.image_id} but not its bands; "
                "open the scene's own file instead"
            )
        return Scene.open(self.scene_file)

    @classmethod
    def of_row(
        cls,
        row: Mapping[str, Any],
        folder: Path,
        score: float = 0.0,
        compared: Mapping[str, tuple[float, float]] | None = None,
    ) -> SceneResult:
        """What a row of a dataset in a folder says, and a search, if any.

        compared: similarity and rank by the comparison's name, NaN where there is none.
        Raises ValueError for a damaged thumbnail.
        """
        values = dict(row)
        scene_file = folder / row["scene_file"] if row["scene_file"] else None
        values["scene_file"] = scene_file if scene_file and scene_file.is_file() else None
        values["thumbnail"] = decode_thumbnail(row["thumbnail"], row["image_id"])
        for name, (similarity, rank) in (compared or {}).items():
            values[f"{name}_similarity"] = None if np.isnan(similarity) else similarity
            values[f"{name}_rank"] = None if np.isnan(rank) else int(rank)
        return cls(**values, score=float(score))


class SearchResults(list[SceneResult]):
    """The scenes that one search found, nearest first.

    warning: one sentence where the search could not be done as asked, such as an engine that did
        not answer; empty otherwise. It belongs to this search alone.
    """

    def __init__(self, results: Iterable[SceneResult] = (), warning: str = "") -> None:
        super().__init__(results)
        self.warning = warning
