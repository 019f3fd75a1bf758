"""Which bridge and scenes the app shows: those it is told to, or the bundled ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.familiarity import BUNDLED_TRAINING_TILES, TrainingTiles
from earthvlm.hub import BUNDLED
from earthvlm.retrieval import SceneIndex, SceneResult
from earthvlm.ui.examples import choose_examples

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Models:
    """What the app works with; the notice says what visitors should know of it, if anything.

    training_tiles: what the bridge learned from, where that is known here.
    """

    bridge: OlmoEarthVLMBridge
    index: SceneIndex
    notice: str = ""
    training_tiles: TrainingTiles | None = None

    @cached_property
    def examples(self) -> list[SceneResult]:
        """Scenes to chat about; a dataset without images, as ChatEarthNet's, has none of its own.

        Chosen by searches, which take a while among many scenes, so once.
        """
        return choose_examples(self.index) or choose_examples(SceneIndex.from_pretrained(BUNDLED))


def load_models(bridge: str = BUNDLED, embeddings: str = BUNDLED) -> Models:
    """Load a bridge and an embedding dataset, by folder, Hub repository or as "bundled".

    Where the Hub does not answer, the bundled pair takes their place, and the notice says so.
    Raises ValueError or FileNotFoundError for names that mean nothing, and damaged files.
    """
    try:
        models = Models(
            OlmoEarthVLMBridge.from_pretrained(bridge),
            SceneIndex.from_pretrained(embeddings),
            training_tiles=BUNDLED_TRAINING_TILES if bridge == BUNDLED else None,
        )
    except ConnectionError as error:
        logger.warning("%s", error)
        wanted = " and ".join(name for name in (bridge, embeddings) if name != BUNDLED)
        return Models(
            OlmoEarthVLMBridge.from_pretrained(BUNDLED),
            SceneIndex.from_pretrained(BUNDLED),
            f"The Hub does not answer, so {wanted} could not be loaded: the bundled bridge answers "
            "here, about the bundled scenes.",
            BUNDLED_TRAINING_TILES,
        )
    made_by = models.index.provenance.bridge_revision
    if made_by == models.bridge.revision:
        return models
    notice = (
        f"The scenes were embedded by another bridge (revision {made_by}), so they can be searched "
        "by words, and not by scene."
    )
    return replace(models, notice=notice)
