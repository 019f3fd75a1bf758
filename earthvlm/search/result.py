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
    """A scene of an index, with its similarities and ranks in a search.

    Similarities are cosines, None where nothing was compared. Ranks count from 1, and are None
    beyond RANK_DEPTH.

    Attributes:
        image_id: the scene's name.
        caption: its description.
        split: as the dataset names it.
        longitude: of its centre, degrees.
        latitude: of its centre, degrees.
        source: owner and licence.
        thumbnail: in true colour.
        scene_file: the GeoTIFF with all bands, None where the dataset does not hold it.
        score: the sum over the ranks of 1 / (60 + rank); 0 without a search.
        match: how well it fits the search, 0 to 1; None without a search. See `MatchScale`.
        caption_similarity: of the query's text and the caption.
        scene_similarity: of the text, or of the example without a text, and the scene.
        example_similarity: of an example that was given together with a text, and the scene.
        caption_rank: by caption_similarity.
        scene_rank: by scene_similarity.
        example_rank: by example_similarity.
        date: of the acquisition.
        datetime: of the acquisition, in UTC; midnight where only the day is known.
        geometry: its outline in degrees as WKB, split at the antimeridian.
        product_id: the Sentinel-2 product it was cut from.
        mgrs_tile: the tile of the Military Grid Reference System, as in 33UUP.
        grid_cell: the cell of the Major TOM grid, as in 584U_85R.
        cloud: the share of its pixels, 0 to 1.
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
    match: float | None = None
    caption_similarity: float | None = None
    scene_similarity: float | None = None
    example_similarity: float | None = None
    caption_rank: int | None = None
    scene_rank: int | None = None
    example_rank: int | None = None
    date: datetime.date | None = None
    datetime: datetime.datetime | None = None
    geometry: bytes | None = None
    product_id: str | None = None
    mgrs_tile: str | None = None
    grid_cell: str | None = None
    cloud: float | None = None

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
        match: float | None = None,
    ) -> SceneResult:
        """Make a result from a row of a dataset in a folder.

        compared: similarity and rank by the query vector's name, NaN where there is none.
        Raises ValueError for a damaged thumbnail.
        """
        values = {name: value for name, value in row.items() if name != "bbox"}
        scene_file = folder / row["scene_file"] if row["scene_file"] else None
        values["scene_file"] = scene_file if scene_file and scene_file.is_file() else None
        values["thumbnail"] = decode_thumbnail(row["thumbnail"], row["image_id"])
        for name, (similarity, rank) in (compared or {}).items():
            values[f"{name}_similarity"] = None if np.isnan(similarity) else similarity
            values[f"{name}_rank"] = None if np.isnan(rank) else int(rank)
        return cls(**values, score=float(score), match=match)


class SearchResults(list[SceneResult]):
    """The scenes that one search found, nearest first.

    warning: sentences on what was not searched as asked: the engine did not answer and another one
    searched, the words are not English, scenes lack what a filter asks for. Else empty.
    """

    def __init__(self, results: Iterable[SceneResult] = (), warning: str = "") -> None:
        super().__init__(results)
        self.warning = warning
