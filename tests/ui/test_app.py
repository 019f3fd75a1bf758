"""The page as it is built."""

from __future__ import annotations

import pytest

from earthvlm.search.index import SceneIndex
from earthvlm.ui.app import build_app, warm_up
from earthvlm.ui.models import Models


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:gradio")
def test_examples_are_searched_for_once(tiny_bridge, monkeypatch):
    searches, search = [], SceneIndex.search

    def count(self, query, *args, **options):
        searches.append(query)
        return search(self, query, *args, **options)

    monkeypatch.setattr(SceneIndex, "search", count)
    models = Models(tiny_bridge, SceneIndex.from_pretrained("bundled"))
    build_app(models)
    warm_up(models)
    assert searches and len(searches) == len(set(searches))
