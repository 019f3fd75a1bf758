"""HTML of a scene: escaped texts, details, titles."""

from __future__ import annotations

from earthvlm.ui.html.scene_html import show_details, show_related_shares
from tests.conftest import random_scene
from tests.support.made_spectra import paint
from tests.ui.opened_scenes import make_photo, open_scene

HTML = "<img src=x onerror=alert(1)>"


def test_texts_of_files_and_models_are_escaped():
    scene = open_scene(make_photo(HTML))
    shown = show_details(scene)
    assert "&lt;img" in shown and "<img src=x" not in shown
    assert "onerror" not in show_related_shares(scene, "Is there water?", HTML)


def test_facts_are_marked_as_measured():
    assert "measured" in show_details(open_scene(random_scene()))
    assert "cannot be measured" in show_details(open_scene(make_photo("photo")))
    lake = open_scene(paint("water", "dense vegetation"))
    shown = show_related_shares(lake, "Is there water?", "Yes, in the north.")
    assert "open water" in shown and "The model says" not in shown
    assert show_related_shares(lake, "Hello.", "Hello.") == ""


def test_answers_that_depart_from_measurements_are_marked():
    lake = open_scene(paint("water", "dense vegetation"))
    shown = show_related_shares(lake, "Is there water?", "No, there is no water in view.")
    assert '<ul class="notes"' in shown and "The model says no water; measured: 50" in shown
