"""The types of what the tools for programs return; Gradio makes JSON schemas of them.

Angles are in degrees, shares and probabilities from 0 to 1, and dates as in 2020-06-30.
"""

from __future__ import annotations

from typing import TypedDict


class Licence(TypedDict):
    """Who may do what with a result.

    scene: the owner and licence of a scene of the dataset; None for the caller's own.
    model: the licence of the bridge, and of what it writes, maps and embeds.
    """

    scene: str | None
    model: str


class LandCoverMap(TypedDict):
    """The land cover of each pixel, as the model sees it, which can be wrong.

    png: a grey picture of 8 bits in base64, whose values are places in `covers`; 255 is no data.
    """

    covers: list[str]
    shares: dict[str, float]
    width: int
    height: int
    png: str


class SceneFacts(TypedDict):
    """The metadata of a scene, and what was measured from its bands.

    disagreements: a sentence for each claim of the model that departs from the measurement.
    """

    image_id: str | None
    date: str | None
    longitude: float | None
    latitude: float | None
    width: int
    height: int
    bands: list[str]
    measured_shares: dict[str, float]
    measured_errors: dict[str, float]
    measured_how: str
    disagreements: list[str]
    warnings: list[str]
    licence: Licence


class Description(SceneFacts):
    """What `describe_scene` returns; map and embedding are None where they were not asked for."""

    caption_by_model: str | None
    land_cover_map: LandCoverMap | None
    embedding: list[float] | None


class Answer(SceneFacts):
    """What `ask_scene` returns."""

    answer_by_model: str
    probabilities: dict[str, float]


class FoundScene(TypedDict):
    """A scene that a search found, with cosine similarities; None where nothing was compared."""

    image_id: str
    caption_by_model: str | None
    longitude: float | None
    latitude: float | None
    date: str | None
    licence: str | None
    caption_similarity: float | None
    scene_similarity: float | None
    example_similarity: float | None


class Found(TypedDict):
    """What `search_scenes` returns. warning: what was not searched as asked, else empty."""

    scenes: list[FoundScene]
    warning: str
