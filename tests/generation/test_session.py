"""Turns about one scene: each reads only what is new, and answers as if it had read everything."""

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
    """A random Moondream2 with its vision tower: the text model reads pictures both ways."""
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
    """A random Gemma 3, some of whose layers look back over a few tokens only."""
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
def tokens_read(monkeypatch) -> list[int]:
    """How many tokens each reading took, in the order they came."""
    counts, read = [], TorchDecoderState.forward

    def count(self, vectors, bidirectional_prefix=0):
        counts.append(vectors.shape[1])
        return read(self, vectors, bidirectional_prefix)

    monkeypatch.setattr(TorchDecoderState, "forward", count)
    return counts


def copy_of(scene: Scene) -> Scene:
    """The same scene as another object, of which nothing was read."""
    return Scene(scene.reflectance)


def talk(bridge: OlmoEarthVLMBridge, scene: Scene, *, again: bool, **options) -> list[str]:
    """The answers to all questions in one conversation; again: each about a scene never seen."""
    messages, answers = [], []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        asked = copy_of(scene) if again else scene
        torch.manual_seed(3)
        answers.append("".join(bridge.stream(asked, messages, max_length=8, **options)))
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers


@pytest.mark.parametrize("kind", ["tiny_bridge", "moondream_bridge", "windowed_bridge"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_turns_answer_as_if_everything_was_read_anew(request, kind, temperature):
    bridge = request.getfixturevalue(kind)
    options = {"temperature": temperature}
    scene = random_scene()
    anew = talk(bridge, scene, again=True, **options)
    assert talk(bridge, scene, again=False, **options) == anew
    assert talk(bridge, scene, again=False, **options) == anew  # and asked again, from the start


def test_a_scene_is_seen_once_and_only_new_words_are_read(tiny_bridge, tokens_read, monkeypatch):
    seen, see = [], tiny_bridge.encoder.forward
    monkeypatch.setattr(tiny_bridge.encoder, "forward", lambda *a: seen.append(1) or see(*a))
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    scene = random_scene()
    answer = "".join(tiny_bridge.stream(scene, messages, max_length=4))
    first = tokens_read[0]
    assert first == len(tiny_bridge.language.encode(messages).ids) + 8
    tokens_read.clear()
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Where?"}]
    "".join(tiny_bridge.stream(scene, messages, max_length=4))
    assert len(seen) == 1
    new = len(tiny_bridge.language.encode(messages).ids) + 8 - first
    assert 0 < tokens_read[0] <= new


def test_an_edited_conversation_is_read_from_where_it_differs(tiny_bridge, tokens_read):
    scene, edited = random_scene(), "Is there any snow?"
    talk(tiny_bridge, scene, again=False)
    tokens_read.clear()
    messages = [{"role": "user", "content": edited}]
    kept = "".join(tiny_bridge.stream(scene, messages, max_length=8))
    read = tokens_read[0]
    tokens_read.clear()
    assert kept == "".join(tiny_bridge.stream(copy_of(scene), messages, max_length=8))
    assert read < tokens_read[0] - 8  # the scene's own eight vectors at least


def test_a_stopped_answer_can_be_gone_on_from(tiny_bridge):
    scene = random_scene()
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    stream = tiny_bridge.stream(scene, messages, max_length=50)
    said = next(stream) + next(stream)
    stream.close()
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "Go on."}]
    kept = "".join(tiny_bridge.stream(scene, messages, max_length=8))
    assert kept == "".join(tiny_bridge.stream(copy_of(scene), messages, max_length=8))


def test_two_threads_ask_about_one_scene_at_once(tiny_bridge):
    scene = random_scene()
    expected = talk(tiny_bridge, scene, again=True)
    answers = {}
    threads = [
        threading.Thread(
            target=lambda n=n: answers.update({n: talk(tiny_bridge, scene, again=False)})
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(range(3), expected)


def test_what_was_read_goes_with_its_scene_and_when_weights_may_change(tiny_bridge):
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


def test_the_oldest_conversations_are_forgotten_beyond_a_bound(tiny_bridge):
    scenes = [random_scene(seed=seed) for seed in range(3)]
    tiny_bridge.text_generator.prefix_cache = kept = PrefixCache(max_tokens=90)
    for scene in scenes:
        "".join(tiny_bridge.stream(scene, [{"role": "user", "content": "Hm?"}], max_length=2))
    assert len(kept) == 2
    assert kept.take(scenes[0]) is None and kept.take(scenes[2]) is not None


def test_a_conversation_beyond_the_context_is_refused_and_an_answer_ends_there(tiny_bridge):
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
