"""The models that the page shows while the Hub does not answer, and after."""

from __future__ import annotations

import time

import pytest

from earthvlm.bridge.hub.publish import publish_bridge
from earthvlm.ui.app import build_app, show_models
from earthvlm.ui.models import load_models

pytestmark = pytest.mark.slow


@pytest.fixture
def impatient_page(monkeypatch) -> None:
    monkeypatch.setattr(
        "earthvlm.storage.hub_fetch.ANSWER_SECONDS", 6.0
    )  # a process has to start within
    monkeypatch.setattr("earthvlm.ui.models.RETRY_SECONDS", 0.2)


def test_named_bridge_answers_when_the_hub_is_back(hub, saved, impatient_page):
    publish_bridge(saved, "owner/bridge")
    hub.hanging = True
    models = load_models("owner/bridge")
    assert models.warning.startswith("The Hub does not answer, so owner/bridge could not be loaded")
    bundled_index = models.index
    page = build_app(models)
    try:
        (show,) = (fn.fn for fn in page.fns.values() if fn.name == "show_current")
        before = show()
        assert before[1] == show_models(models) and not models.pending.done()
        hub.hanging = False
        named = models.pending.result(timeout=120)
        assert named.bridge.commit == hub.repositories["owner/bridge"].refs["main"]
        for _ in range(600):  # until it has answered once
            if show()[1] != before[1]:
                break
            time.sleep(0.1)
        warning, about, _map_button = show()
        assert about == show_models(named) != before[1]
        assert warning.visible == bool(named.warning)
        assert named.index.provenance == bundled_index.provenance
    finally:
        page.close()


def test_slow_models_start_the_page_with_bundled_ones(hub, saved, impatient_page, monkeypatch):
    publish_bridge(saved, "owner/bridge")
    monkeypatch.setattr("earthvlm.ui.models.START_SECONDS", 0.0)
    models = load_models("owner/bridge")
    assert models.warning.startswith("The Hub is slow, so owner/bridge could not be loaded yet")
    assert models.pending.result(timeout=120).bridge.revision != models.bridge.revision


def test_unknown_name_is_not_tried_again(hub, impatient_page):
    with pytest.raises(ValueError, match="There is no folder owner/nothing"):
        load_models("owner/nothing")
