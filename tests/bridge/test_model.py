"""The bridge with random weights: training loss, answers, files and errors."""

from __future__ import annotations

import inspect
import json
import shutil
import threading
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from benchmarks.embedding import embed_by_package
from earthvlm.bridge.batch import insert_scene
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.questions.unanswerable import ASK_IN_ENGLISH
from earthvlm.generation.sampling import MAX_PROMPT_CHARACTERS
from earthvlm.scenes.bands import BANDS
from tests.conftest import draw_adapter, random_scene

ANSWERED = [
    {"role": "user", "content": "Is there water?"},
    {"role": "assistant", "content": "Yes, a lake."},
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "In the top left."},
]


def batch_of(bridge: OlmoEarthVLMBridge, *conversations):
    scenes = [bridge.encoder.prepare(random_scene(seed=i)) for i in range(len(conversations))]
    return bridge.collate(scenes, [bridge.language.encode(c) for c in conversations])


def test_only_answers_are_labelled(tiny_bridge):
    prompt = tiny_bridge.language.encode(ANSWERED)
    tokenizer = tiny_bridge.language.tokenizer
    labelled = tokenizer.decode([i for i in prompt.labels if i != -100])
    assert labelled == "Yes, a lake.<|im_end|>\nIn the top left.<|im_end|>\n"
    assert "Is there water?" in tokenizer.decode(prompt.ids[prompt.scene_at :])
    assert "water" not in tokenizer.decode(prompt.ids[: prompt.scene_at])


def test_loss_equals_that_of_full_logits(tiny_bridge):
    batch = batch_of(tiny_bridge, ANSWERED, ANSWERED[:2])
    with torch.no_grad():
        output = tiny_bridge(batch)
        _, queries = tiny_bridge.encode(batch.scenes)
        embeds, mask = insert_scene(
            tiny_bridge.language, batch.ids, queries, batch.mask, batch.scene_at
        )
        logits = tiny_bridge.language.model(inputs_embeds=embeds, attention_mask=mask).logits
    blank = torch.full((2, queries.shape[1]), -100)
    at = batch.scene_at
    labels = torch.cat([batch.labels[:, :at], blank, batch.labels[:, at:]], dim=1)
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    assert output.answer_tokens == (labels != -100).sum()


def test_padding_does_not_change_the_loss(tiny_bridge):
    long = [{"role": "user", "content": "word " * 60}, {"role": "assistant", "content": "Yes."}]
    scene = tiny_bridge.encoder.prepare(random_scene())
    short, padding = (tiny_bridge.language.encode(c) for c in (ANSWERED, long))
    with torch.no_grad():
        alone = tiny_bridge(tiny_bridge.collate([scene], [short])).loss
        batch = tiny_bridge.collate([scene, scene], [short, padding])
        batch.labels[1] = -100
        padded = tiny_bridge(batch).loss
    torch.testing.assert_close(alone, padded)


def test_all_trainable_modules_get_gradients(tiny_bridge):
    tiny_bridge.train()
    output = tiny_bridge(batch_of(tiny_bridge, ANSWERED))
    (output.loss + output.scene_embedding.sum()).backward()
    for name in ("encoder.network.blocks", "fusion.queries", "head.layers", "lora_B"):
        gradients = [p.grad for n, p in tiny_bridge.named_parameters() if name in n]
        assert gradients and any(g is not None and g.abs().sum() > 0 for g in gradients), name
    words = tiny_bridge.language.model.get_input_embeddings().weight
    assert words.grad is None


def test_loss_depends_on_the_scene(tiny_bridge):
    with torch.no_grad():
        losses = [
            tiny_bridge(
                tiny_bridge.collate(
                    [tiny_bridge.encoder.prepare(random_scene(seed=seed))],
                    [tiny_bridge.language.encode(ANSWERED)],
                )
            ).loss.item()
            for seed in (0, 1)
        ]
    assert losses[0] != losses[1]


def test_batch_answers_equal_single_answers(tiny_bridge):
    scenes = [random_scene(), random_scene(40, 72, seed=1)]
    prompts = ["Is there water?", "Describe this scene in a few more words."]
    together = tiny_bridge.generate(scenes, prompts, max_length=8)
    alone = [tiny_bridge.generate(s, p, max_length=8) for s, p in zip(scenes, prompts, strict=True)]
    assert together == alone


def test_scenes_of_mixed_sizes_keep_their_order(tiny_bridge, monkeypatch):
    monkeypatch.setattr("earthvlm.bridge.batch.MAX_BATCH_PATCHES", 150)
    monkeypatch.setattr("earthvlm.bridge.model.MAX_BATCH_SCENES", 3)
    sizes = [(64, 64), (16, 40), (128, 96), (16, 16), (64, 64), (16, 24)]
    scenes = [random_scene(*size, seed=seed) for seed, size in enumerate(sizes)]
    together = tiny_bridge.generate(scenes, max_length=4)
    assert together == [tiny_bridge.generate(scene, max_length=4) for scene in scenes]
    alone = np.concatenate([tiny_bridge.embed([scene]) for scene in scenes])
    np.testing.assert_allclose(tiny_bridge.embed(scenes), alone, atol=1e-5)


def test_streamed_pieces_join_to_the_answer(tiny_bridge):
    message = [{"role": "user", "content": "Is there water?"}]
    pieces = list(tiny_bridge.stream(random_scene(), message, max_length=8))
    answer = tiny_bridge.generate(random_scene(), "Is there water?", max_length=8)
    assert "".join(pieces).strip() == answer


def test_stream_ends_on_stop_event_and_on_close(tiny_bridge):
    message = [{"role": "user", "content": "Is there water?"}]
    tiny_bridge.language.model.generation_config.eos_token_id = None
    stop = threading.Event()
    stream = tiny_bridge.stream(random_scene(), message, max_length=2000, stop=stop)
    next(stream)
    stop.set()
    assert len(list(stream)) < 100
    stream = tiny_bridge.stream(random_scene(), message, max_length=2000)
    next(stream)
    stream.close()
    assert list(stream) == []


def test_model_errors_reach_the_caller_of_stream(tiny_bridge, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tiny_bridge.language.model, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(tiny_bridge.stream(random_scene(), [{"role": "user", "content": "Hm?"}]))


def test_embeddings_do_not_depend_on_the_batch(tiny_bridge):
    scenes = [random_scene(seed=i) for i in range(3)]
    together = tiny_bridge.embed(scenes)
    assert together.shape == (3, 384) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(together, tiny_bridge.embed(scenes, batch_size=1), atol=1e-5)


def test_embedding_patch_size_is_independent(tiny_bridge, tmp_path):
    scenes = [random_scene(seed=seed) for seed in range(2)]
    coarse = tiny_bridge.embed(scenes)
    tiny_bridge.set_patch_sizes(4, 4)
    assert np.abs(tiny_bridge.embed(scenes) - coarse).max() > 1e-3
    tiny_bridge.set_patch_sizes(4, 8)
    tiny_bridge.save_pretrained(tmp_path)
    again = OlmoEarthVLMBridge.from_pretrained(tmp_path, "cpu", torch.float32)
    for bridge in (tiny_bridge, again):
        np.testing.assert_allclose(bridge.embed(scenes), coarse, atol=1e-5)
        tokens, _ = bridge.encode([bridge.prepare(scene) for scene in scenes])
        assert tokens.grids == ((16, 16), (16, 16))  # chats keep the small patches


def test_embeddings_match_the_package(tiny_bridge):
    scenes = [random_scene(seed=i) for i in range(3)]
    directly = np.concatenate([embed_by_package(tiny_bridge, scene) for scene in scenes])
    np.testing.assert_allclose(tiny_bridge.embed(scenes), directly, atol=1e-3)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("", "empty"), (" \n", "empty"), ("x" * (MAX_PROMPT_CHARACTERS + 1), "at most 2,000")],
)
def test_empty_and_overlong_prompts_are_rejected(tiny_bridge, prompt, message):
    with pytest.raises(ValueError, match=message):
        tiny_bridge.generate(random_scene(), prompt)


def test_loaded_bridge_answers_like_the_saved_one(tiny_bridge, tmp_path):
    draw_adapter(tiny_bridge)
    tiny_bridge.save_pretrained(tmp_path)
    loaded = OlmoEarthVLMBridge.from_pretrained(
        tmp_path, device="cpu", dtype=torch.float32, trainable=True
    )
    assert loaded.revision == tiny_bridge.revision != "untrained"
    for seed in range(3):
        scene = random_scene(seed=seed)
        assert loaded.generate(scene, max_length=8) == tiny_bridge.generate(scene, max_length=8)
        np.testing.assert_array_equal(loaded.embed([scene]), tiny_bridge.embed([scene]))
    merged = OlmoEarthVLMBridge.from_pretrained(tmp_path, device="cpu", dtype=torch.float32)
    batch = batch_of(tiny_bridge, ANSWERED)
    with torch.no_grad():
        torch.testing.assert_close(merged(batch).loss, tiny_bridge(batch).loss)


def test_from_config_passes_every_entry_that_builds(tiny_bridge):
    changes = {"freeze_olmoearth": True, "freeze_vlm_vision": True, "lora_r": 4, "lora_alpha": 8}
    changes |= {"num_geo_queries": 3, "patch_size": 4, "embedding_patch_size": 8}
    changes |= {"scene_context": True, "english_only": True}
    config = replace(tiny_bridge.config, bands=BANDS[:9], **changes)
    assert OlmoEarthVLMBridge.from_config(config, "cpu").config == config
    arguments = set(inspect.signature(OlmoEarthVLMBridge).parameters)
    assert arguments - {"device", "dtype", "trainable", "adapter"} <= set(asdict(config))


def test_adapter_loads_with_peft(tiny_bridge, tiny_language, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tiny_bridge.save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_language)
    assert PeftModel.from_pretrained(base, tmp_path / "adapter").peft_config


@pytest.fixture
def saved(tiny_bridge, tmp_path) -> Path:
    tiny_bridge.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "part",
    ["config.json", "fusion.safetensors", "encoder.safetensors", "adapter/adapter_config.json"],
)
def test_missing_file_is_named(saved, part):
    (saved / part).unlink()
    with pytest.raises(FileNotFoundError, match=part):
        OlmoEarthVLMBridge.from_pretrained(saved)


def test_tensor_of_wrong_shape_is_named(saved):
    path = saved / "fusion.safetensors"
    state = load_file(path)
    state["fusion.queries"] = state["fusion.queries"][:4].clone()
    save_file(state, path)
    with pytest.raises(
        ValueError, match=r"fusion.queries of shape \(4, 64\), expected is \(8, 64\)"
    ):
        OlmoEarthVLMBridge.from_pretrained(saved)


def test_missing_tensor_is_named(saved):
    path = saved / "encoder.safetensors"
    state = load_file(path)
    name = sorted(state)[0]
    del state[name]
    save_file(state, path)
    with pytest.raises(ValueError, match=f"lacks tensor {name}"):
        OlmoEarthVLMBridge.from_pretrained(saved)


def test_truncated_file_is_named(saved):
    path = saved / "adapter/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="adapter_model.safetensors is damaged"):
        OlmoEarthVLMBridge.from_pretrained(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format_version": 99}, "has format 99"), ({"colour": 1}, "colour")],
)
def test_unknown_config_is_rejected(saved, change, message):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        OlmoEarthVLMBridge.from_pretrained(saved)


def test_missing_folder_is_rejected(tmp_path):
    shutil.rmtree(tmp_path)
    with pytest.raises(ValueError, match="neither a folder nor the id of a Hub repository"):
        OlmoEarthVLMBridge.from_pretrained(tmp_path)


def test_a_bridge_of_english_alone_declines_other_languages(tiny_bridge):
    asked = [{"role": "user", "content": "¿Hay agua?"}]
    scene = random_scene()
    assert tiny_bridge.generate(scene, "¿Hay agua?", max_length=4) != ASK_IN_ENGLISH
    tiny_bridge.set_prompts(english_only=True)
    assert tiny_bridge.generate(scene, "水？") == ASK_IN_ENGLISH
    assert list(tiny_bridge.stream(scene, asked)) == [ASK_IN_ENGLISH]
    first, second, third = tiny_bridge.generate(
        [scene] * 3, ["Is there water?", "Gibt es Wasser?", "Is there snow?"], max_length=4
    )
    assert second == ASK_IN_ENGLISH and ASK_IN_ENGLISH not in (first, third)
    assert tiny_bridge.generate([scene] * 2, "Gibt es Wasser?") == [ASK_IN_ENGLISH] * 2
