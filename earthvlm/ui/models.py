"""Which bridge and scenes the app shows: those it is told to, or the bundled ones."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.search.index import SceneIndex, SceneResult
from earthvlm.storage.hub import BUNDLED
from earthvlm.ui.examples import choose_examples

logger = logging.getLogger(__name__)

# How long the page waits for models by name before it opens with the bundled pair.
START_SECONDS = 20.0
RETRY_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Models:
    """What the app works with; the notice says what visitors should know of it, if anything.

    awaited: the models that take the place of these once they are loaded.
    """

    bridge: OlmoEarthVLMBridge
    index: SceneIndex
    notice: str = ""
    awaited: Future[Models] | None = None

    @cached_property
    def examples(self) -> list[SceneResult]:
        """Scenes to chat about; a dataset without images, as ChatEarthNet's, has none of its own.

        Chosen by searches, which take a while among many scenes, so once.
        """
        return choose_examples(self.index) or choose_examples(SceneIndex.from_pretrained(BUNDLED))


def load_models(bridge: str = BUNDLED, embeddings: str = BUNDLED) -> Models:
    """Load a bridge and an embedding dataset, by folder, Hub repository or as "bundled".

    Where the Hub does not answer, or they take longer than `START_SECONDS`, the bundled pair takes
    their place, the notice says so, and they are loaded in the background: see `Models.awaited`.
    Raises ValueError or FileNotFoundError for names that mean nothing, and damaged files.
    """
    if bridge == embeddings == BUNDLED:
        return _load(bridge, embeddings)
    wanted = " and ".join(name for name in (bridge, embeddings) if name != BUNDLED)
    awaited: Future[Models] = Future()
    failed = threading.Event()
    threading.Thread(
        target=_keep_loading, args=(bridge, embeddings, awaited, failed), daemon=True
    ).start()
    if not _wait(awaited, failed):
        reason = "The Hub does not answer" if failed.is_set() else "The Hub is slow"
        return replace(
            _load(BUNDLED, BUNDLED),
            notice=f"{reason}, so {wanted} could not be loaded yet: the bundled bridge answers "
            "here, about the bundled scenes. Loading continues; reload this page later.",
            awaited=awaited,
        )
    return awaited.result()


def _wait(awaited: Future[Models], failed: threading.Event) -> bool:
    """Whether models are there, or never will be, before a try failed or it took too long."""
    awaited.add_done_callback(lambda _: failed.set())
    failed.wait(START_SECONDS)
    return awaited.done()


def _keep_loading(
    bridge: str, embeddings: str, awaited: Future[Models], failed: threading.Event
) -> None:
    """Load the models, again and again while the Hub does not answer."""
    while not awaited.done():
        try:
            awaited.set_result(_load(bridge, embeddings))
        except ConnectionError as error:
            logger.warning("%s Trying again in %g seconds.", error, RETRY_SECONDS)
            failed.set()
            time.sleep(RETRY_SECONDS)
        except Exception as error:
            awaited.set_exception(error)


def _load(bridge: str, embeddings: str) -> Models:
    models = Models(
        OlmoEarthVLMBridge.from_pretrained(bridge),
        SceneIndex.from_pretrained(embeddings),
    )
    made_by = models.index.provenance.bridge_revision
    if made_by == models.bridge.revision:
        return models
    notice = (
        f"The scenes were embedded by another bridge (revision {made_by}), so they can be searched "
        "by words, and not by scene."
    )
    return replace(models, notice=notice)
