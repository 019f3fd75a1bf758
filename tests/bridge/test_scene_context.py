"""A scene's context: its fixed form, and that every prompt about a scene holds it."""

from __future__ import annotations

import datetime
from dataclasses import replace

import numpy as np
import pytest
import torch

from earthvlm.bridge.attention_maps import attend
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.scene_context import shorten_cover, write_scene_context
from earthvlm.data.labels import QUARTERS
from earthvlm.models.language.language_model import LanguageModel, load_language_model
from earthvlm.scenes.analysis.spectral_indices import measure
from earthvlm.scenes.bands import VISIBLE_BANDS
from earthvlm.scenes.land_cover import COVERS, CoverMap
from earthvlm.scenes.scene import Scene
from tests.conftest import random_scene
from tests.support.made_spectra import paint
from tests.support.tiny_models import save_tiny_model

KNOWN = {"date": datetime.date(2020, 9, 14), "longitude": 2.815, "latitude": 42.347}


def lake_in_forest() -> CoverMap:
    classes = np.full((60, 60), COVERS.index("tree cover"), np.uint8)
    classes[40:, 40:] = COVERS.index("water")
    return CoverMap(classes)


def test_context_has_a_fixed_form():
    scene = replace(paint("water", "dense vegetation", **KNOWN), pixel_metres=10.0)
    assert write_scene_context(scene, lake_in_forest(), measure(scene)) == (
        "14 September 2020, autumn. 42.3° N 2.8° E, temperate. 0.2 x 0.2 km. 5 bands.\n"
        "Measured: 50% water.\n"
        "Map: 90% tree everywhere; 10% water bottom right, 1 compact by tree, 0.28 ha.\n"
        "Quarters: top left 100% tree; top right 100% tree; bottom left 100% tree; "
        "bottom right 55% tree, water.\n"
        "Ninths: top left tree, top tree, top right tree, left tree, centre tree, right tree, "
        "bottom left tree, bottom tree, bottom right water."
    )


def test_context_lists_every_measurement_where_there_is_no_map():
    scene = paint("water", "dense vegetation")
    assert write_scene_context(scene, None, measure(scene)).endswith(
        "\nMeasured: 50% water, 50% dense plants."
    )


def test_context_names_a_river_by_its_ends():
    classes = np.full((60, 60), COVERS.index("bare soil"), np.uint8)
    classes[28:32] = COVERS.index("water")
    text = write_scene_context(paint("water"), CoverMap(classes), None)
    assert "; 7% water everywhere, 1 long left to right by bare." in text


def test_context_of_a_hidden_scene_maps_its_cloud():
    hidden = CoverMap(np.full((60, 60), COVERS.index("cloud"), np.uint8))
    text = write_scene_context(paint("water"), hidden, None)
    quarters = "; ".join(f"{name} cloud" for name in QUARTERS)
    assert text.endswith(
        f"\nMap: 100% cloud everywhere.\nQuarters: {quarters}.\nNinths: all cloud."
    )


def test_context_says_what_is_not_known():
    photo = paint("water", bands=VISIBLE_BANDS)
    assert write_scene_context(photo, None, None) == (
        "Date unknown. Place unknown. Size unknown. Colour only.\nNothing measured."
    )


def test_uniform_map_is_short():
    lake = CoverMap(np.full((30, 30), COVERS.index("water"), np.uint8))
    text = write_scene_context(paint("water"), lake, None)
    assert "\nMap: 100% water everywhere, 1 compact.\n" in text
    assert text.endswith("\nNinths: all water.")


def test_short_names_of_covers_are_unique():
    assert len({shorten_cover(cover) for cover in COVERS}) == len(COVERS)


def spy_on_encode(bridge: OlmoEarthVLMBridge, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of each prompt that the bridge encodes from now on."""
    texts, encode = [], LanguageModel.encode

    def keep(language, messages, context=""):
        prompt = encode(language, messages, context)
        texts.append(language.tokenizer.decode(prompt.ids))
        return prompt

    monkeypatch.setattr(LanguageModel, "encode", keep)
    return texts


def ask_everywhere(bridge: OlmoEarthVLMBridge, scene: Scene) -> None:
    """Let the bridge encode prompts about a scene in each of its ways."""
    asked = [{"role": "user", "content": "Is there water?"}]
    answered = [*asked, {"role": "assistant", "content": "Yes."}]
    bridge.generate(scene, "Is there water?", max_length=2)
    bridge.generate([scene, scene], "Is there water?", max_length=2)
    "".join(bridge.stream(scene, asked, max_length=2))
    "".join(bridge.stream(scene, [*answered, *asked], max_length=2))
    bridge.answer_losses([scene], [answered])
    attend(bridge, scene, answered)


def test_all_prompts_about_a_scene_hold_its_context(tiny_bridge, monkeypatch):
    scene = paint("water", "dense vegetation", **KNOWN)
    texts = spy_on_encode(tiny_bridge, monkeypatch)
    ask_everywhere(tiny_bridge, scene)
    assert len(texts) == 7 and not any("Measured" in text for text in texts)
    texts.clear()
    tiny_bridge.set_prompts(scene_context=True)
    ask_everywhere(tiny_bridge, scene)
    context = write_scene_context(scene, None, measure(scene))
    beginning = f"<|im_start|>user\n\n{context}\nIs there water?<|im_end|>"
    assert len(texts) == 7 and all(text.count(beginning) == 1 for text in texts)
    assert all(text.count("Measured") == 1 for text in texts)


def test_prompts_without_a_scene_have_no_context(tiny_bridge, monkeypatch):
    texts = spy_on_encode(tiny_bridge, monkeypatch)
    tiny_bridge.set_prompts(scene_context=True)
    tiny_bridge.generate(None, ["Is there water?", "Is there snow?"], max_length=2)
    assert len(texts) == 2 and not any("Measured" in text for text in texts)


def test_later_turns_reuse_the_context(tiny_bridge, monkeypatch):
    tiny_bridge.set_prompts(scene_context=True)
    scene, lengths = random_scene(), []
    session = type(tiny_bridge.text_generator.start_session(torch.zeros(1, 1)).state)
    forward = session.forward
    monkeypatch.setattr(
        session, "forward", lambda self, e, *a: lengths.append(e.shape[1]) or forward(self, e, *a)
    )
    messages = [{"role": "user", "content": "Is there water?"}]
    answer = "".join(tiny_bridge.stream(scene, messages, max_length=4))
    first = lengths[0]
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Where?"}]
    lengths.clear()
    "".join(tiny_bridge.stream(scene, messages, max_length=4))
    assert first > 60 and lengths[0] < 40


def test_saved_bridge_keeps_reading_the_context(tiny_bridge, tmp_path):
    tiny_bridge.save_pretrained(tmp_path / "without")
    tiny_bridge.set_prompts(scene_context=True)
    tiny_bridge.save_pretrained(tmp_path / "with")
    load = OlmoEarthVLMBridge.from_pretrained
    loaded = load(tmp_path / "with", "cpu")
    assert loaded.config.scene_context and loaded.revision == tiny_bridge.revision
    assert load(tmp_path / "without", "cpu").revision != loaded.revision


def test_moondream_prompt_has_the_context_before_the_question(tmp_path):
    save_tiny_model(tmp_path, "phi", num_attention_heads=1)
    model = load_language_model(str(tmp_path))
    prompt = model.encode([{"role": "user", "content": "Is there water?"}], "Nothing measured.")
    text = model.tokenizer.decode(prompt.ids[prompt.scene_at :])
    assert text == "\n\nNothing measured.\n\nQuestion: Is there water?\n\nAnswer:"
