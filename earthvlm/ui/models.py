"""The bridge and the scenes that the app shows: the bundled ones, or others by name."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.search.engines.factory import AUTO
from earthvlm.search.index import SceneIndex, SceneResult
from earthvlm.storage.hub import BUNDLED
from earthvlm.ui.examples import choose_examples

logger = logging.getLogger(__name__)

# The app waits so long for models from the Hub; then it starts with the bundled ones.
START_SECONDS = 20.0
RETRY_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Models:
    """The models of the app.

    warning: a sentence for visitors, or "". pending: the models that replace these once loaded.
    """

    bridge: OlmoEarthVLMBridge
    index: SceneIndex
    warning: str = ""
    pending: Future[Models] | None = None

    @cached_property
    def examples(self) -> list[SceneResult]:
        """Example scenes; the bundled ones where the dataset holds no images.

        They are chosen by searches, which are slow among many scenes, so once.
        """
        return choose_examples(self.index) or choose_examples(SceneIndex.from_pretrained(BUNDLED))


def load_models(
    bridge: str = BUNDLED, embeddings: str = BUNDLED, search_engine: str = AUTO
) -> Models:
    """Load a bridge and an embedding dataset, by folder, Hub repository or as "bundled".

    search_engine: see `make_engine`.

    Where the Hub does not answer, or loading takes longer than `START_SECONDS`, returns the bundled
    ones with a warning and continues to load in the background: see `Models.pending`.
    Raises ValueError or FileNotFoundError for unknown names and damaged files.
    """
    if bridge == embeddings == BUNDLED:
        return _load(bridge, embeddings, search_engine)
    wanted = " and ".join(name for name in (bridge, embeddings) if name != BUNDLED)
    pending: Future[Models] = Future()
    failed = threading.Event()
    threading.Thread(
        target=_keep_loading,
        args=(bridge, embeddings, search_engine, pending, failed),
        daemon=True,
    ).start()
    if not _wait(pending, failed):
        reason = "The Hub does not answer" if failed.is_set() else "The Hub is slow"
        return replace(
            _load(BUNDLED, BUNDLED, AUTO),
            warning=f"{reason}, so {wanted} could not be loaded yet: the bundled bridge and "
            "scenes are shown instead. Loading continues; reload this page later.",
            pending=pending,
        )
    return pending.result()


def _wait(pending: Future[Models], failed: threading.Event) -> bool:
    """Wait for the models; return whether loading ended before a try failed or time was up."""
    pending.add_done_callback(lambda _: failed.set())
    failed.wait(START_SECONDS)
    return pending.done()


def _keep_loading(
    bridge: str,
    embeddings: str,
    search_engine: str,
    pending: Future[Models],
    failed: threading.Event,
) -> None:
    """Load the models; try again while the Hub does not answer."""
    while not pending.done():
        try:
            pending.set_result(_load(bridge, embeddings, search_engine))
        except ConnectionError as error:
            logger.warning("%s Trying again in %g seconds.", error, RETRY_SECONDS)
            failed.set()
            time.sleep(RETRY_SECONDS)
        except Exception as error:
            pending.set_exception(error)


def _load(bridge: str, embeddings: str, search_engine: str) -> Models:
    models = Models(
        OlmoEarthVLMBridge.from_pretrained(bridge),
        SceneIndex.from_pretrained(embeddings, engine=search_engine),
    )
    bridge_revision = models.index.provenance.bridge_revision
    if bridge_revision == models.bridge.revision:
        return models
    warning = (
        f"The scenes were embedded by another bridge (revision {bridge_revision}), so they can be "
        "searched by words but not by scene."
    )
    return replace(models, warning=warning)
