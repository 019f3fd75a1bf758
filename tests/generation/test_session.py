"""Chat sessions: later turns compute only new tokens, and answer as without a cache."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
import torch

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation.decoding import TorchDecoderState
from earthvlm.generation.session import PrefixCache
from earthvlm.scenes.scene import Scene
from tests.conftest import random_scene
from tests.support.moondream_reference import write_checkpoint
from tests.support.tiny_models import save_tiny_model

QUESTIONS = ("Is there water?", "Where is it?", "And what is beside it?")


@pytest.fixture
def moondream_bridge(tmp_path: Path) -> OlmoEarthVLMBridge:
    """A random Moondream2 with its vision tower, whose tokens attend in both directions."""
    write_checkpoint(tmp_path, "2024")
    torch.manual_seed(0)
    return OlmoEarthVLMBridge(
        "random-v1.2-nano",
        str(tmp_path),
        num_geo_queries=4,
        device="cpu",
        dtype=torch.float32,
        use_vlm_vision=True,
    ).eval()


@pytest.fixture
def windowed_bridge(tmp_path: Path) -> OlmoEarthVLMBridge:
    """A random Gemma 3, one of whose layers has a sliding window."""
    save_tiny_model(
        tmp_path,
        "gemma3_text",
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
    )
    return OlmoEarthVLMBridge(
        "random-v1.2-nano", str(tmp_path), num_geo_queries=8, device="cpu", dtype=torch.float32
    ).eval()


@pytest.fixture
def pass_lengths(monkeypatch) -> list[int]:
    """The number of tokens of each forward pass, in order."""
    counts, forward = [], TorchDecoderState.forward

    def count(self, vectors, bidirectional_prefix=0):
        counts.append(vectors.shape[1])
        return forward(self, vectors, bidirectional_prefix)

    monkeypatch.setattr(TorchDecoderState, "forward", count)
    return counts


def copy_of(scene: Scene) -> Scene:
    """The same scene as another object, for which no session is cached."""
    return Scene(scene.reflectance)


def talk(bridge: OlmoEarthVLMBridge, scene: Scene, *, cached: bool, **options) -> list[str]:
    """The answers to all questions in one conversation; not cached: each about a new object."""
    messages, answers = [], []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        asked = scene if cached else copy_of(scene)
        torch.manual_seed(3)
        answers.append("".join(bridge.stream(asked, messages, max_length=8, **options)))
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tiny_bridge", "moondream_bridge", "windowed_bridge"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_turns_answer_like_uncached_ones(request, kind, temperature):
    bridge = request.getfixturevalue(kind)
    options = {"temperature": temperature}
    scene = random_scene()
    uncached = talk(bridge, scene, cached=False, **options)
    assert talk(bridge, scene, cached=True, **options) == uncached
    assert talk(bridge, scene, cached=True, **options) == uncached  # from the first turn again


def test_later_turn_encodes_no_scene_and_only_new_tokens(tiny_bridge, pass_lengths, monkeypatch):
    calls, forward = [], tiny_bridge.encoder.forward
    monkeypatch.setattr(tiny_bridge.encoder, "forward", lambda *a: calls.append(1) or forward(*a))
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    scene = random_scene()
    answer = "".join(tiny_bridge.stream(scene, messages, max_length=4))
    first = pass_lengths[0]
    assert first == len(tiny_bridge.language.encode(messages).ids) + 8
    pass_lengths.clear()
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Where?"}]
    "".join(tiny_bridge.stream(scene, messages, max_length=4))
    assert len(calls) == 1
    new = len(tiny_bridge.language.encode(messages).ids) + 8 - first
    assert 0 < pass_lengths[0] <= new


def test_edited_conversation_reuses_the_common_prefix(tiny_bridge, pass_lengths):
    scene, edited = random_scene(), "Is there any snow?"
    talk(tiny_bridge, scene, cached=True)
    pass_lengths.clear()
    messages = [{"role": "user", "content": edited}]
    kept = "".join(tiny_bridge.stream(scene, messages, max_length=8))
    length = pass_lengths[0]
    pass_lengths.clear()
    assert kept == "".join(tiny_bridge.stream(copy_of(scene), messages, max_length=8))
    assert length < pass_lengths[0] - 8  # at least the scene's eight vectors


def test_conversation_continues_after_a_stopped_answer(tiny_bridge):
    scene = random_scene()
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    stream = tiny_bridge.stream(scene, messages, max_length=50)
    answer = next(stream) + next(stream)
    stream.close()
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]
    kept = "".join(tiny_bridge.stream(scene, messages, max_length=8))
    assert kept == "".join(tiny_bridge.stream(copy_of(scene), messages, max_length=8))


def test_threads_can_ask_about_one_scene_at_once(tiny_bridge):
    scene = random_scene()
    expected = talk(tiny_bridge, scene, cached=False)
    answers = {}
    threads = [
        threading.Thread(
            target=lambda n=n: answers.update({n: talk(tiny_bridge, scene, cached=True)})
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(range(3), expected)


def test_sessions_are_dropped_with_scene_and_on_train(tiny_bridge):
    kept = tiny_bridge.text_generator.prefix_cache
    scene, other = random_scene(), random_scene(seed=1)
    for asked in (scene, other):
        "".join(tiny_bridge.stream(asked, [{"role": "user", "content": "Hm?"}], max_length=2))
    assert len(kept) == 2
    del scene, asked
    gc.collect()
    assert len(kept) == 1 and kept.take(other) is not None
    "".join(tiny_bridge.stream(other, [{"role": "user", "content": "Hm?"}], max_length=2))
    tiny_bridge.train()
    assert len(kept) == 0


def test_oldest_sessions_are_dropped_beyond_max_tokens(tiny_bridge):
    scenes = [random_scene(seed=seed) for seed in range(3)]
    tiny_bridge.text_generator.prefix_cache = kept = PrefixCache(max_tokens=90)
    for scene in scenes:
        "".join(tiny_bridge.stream(scene, [{"role": "user", "content": "Hm?"}], max_length=2))
    assert len(kept) == 2
    assert kept.take(scenes[0]) is None and kept.take(scenes[2]) is not None


def test_context_limits_prompt_and_answer(tiny_bridge):
    language = tiny_bridge.language
    tiny_bridge.language.model.generation_config.eos_token_id = None
    asked = [{"role": "user", "content": "Hm?"}]
    prompt = len(language.encode(asked).ids) + 8
    language.model.config.max_position_embeddings = prompt + 3
    scene = random_scene()
    said = "".join(tiny_bridge.stream(scene, asked, max_length=100))
    assert len(language.tokenizer(said, add_special_tokens=False).input_ids) <= 3
    longer = [{"role": "user", "content": "word " * 20}]
    for answer in (
        lambda: "".join(tiny_bridge.stream(scene, longer)),
        lambda: tiny_bridge.generate([scene, scene], longer[0]["content"]),
    ):
        with pytest.raises(ValueError, match="clear it, or ask in fewer words"):
            answer()
