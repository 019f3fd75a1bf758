"""Moondream2's two published layouts compared with an independent reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.models.language import moondream2
from earthvlm.models.language.language_model import load_language_model
from earthvlm.models.language.moondream2_vision import choose_tiling
from earthvlm.storage import tensors as storage_tensors
from tests.conftest import random_scene
from tests.support.moondream_reference import NAMES, picture_tokens, text_logits, write_checkpoint

LAYOUTS = pytest.mark.parametrize("layout", ["2024", "2025"])
TURNS = [
    {"role": "user", "content": "Is there water?"},
    {"role": "assistant", "content": "Yes, a lake."},
    {"role": "user", "content": "Where?"},
]


@pytest.fixture
def checkpoint(tmp_path: Path, layout: str) -> tuple[str, dict[str, torch.Tensor]]:
    return str(tmp_path), write_checkpoint(tmp_path, layout)


@LAYOUTS
@pytest.mark.parametrize("variant", ["one file", "shards", "compiled"])
def test_logits_match_the_reference(tmp_path, layout, variant):
    tensors = write_checkpoint(
        tmp_path, layout, shards=3 if variant == "shards" else 1, compiled=variant == "compiled"
    )
    language = load_language_model(str(tmp_path), torch.float32)
    assert type(language.model).__name__ == "PhiForCausalLM"
    ids = torch.randint(0, 250, (1, 21), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = language.model(ids).logits[0]
    expected = text_logits(tensors, layout, tensors[NAMES[layout]["embed"]][ids[0]])
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)


@LAYOUTS
def test_cached_generation_matches_the_reference(checkpoint, layout):
    folder, tensors = checkpoint
    language = load_language_model(folder, torch.float32)
    embedding = tensors[NAMES[layout]["embed"]]
    ids = [5, 17, 60, 33]
    expected = list(ids)
    for _ in range(8):
        expected.append(text_logits(tensors, layout, embedding[expected])[-1].argmax().item())
    generated = language.model.generate(
        torch.tensor([ids]), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert generated[0].tolist() == expected


def test_prompt_of_2024_uses_words(tmp_path):
    write_checkpoint(tmp_path, "2024")
    language = load_language_model(str(tmp_path))
    prompt = language.encode(TURNS)
    assert language.tokenizer.decode(prompt.ids) == (
        "<|endoftext|>\n\nQuestion: Is there water?\n\nAnswer: Yes, a lake.<|endoftext|>"
        "\n\nQuestion: Where?\n\nAnswer:"
    )
    assert prompt.scene_at == 1
    spoken = [i for i in prompt.labels if i != -100]
    assert language.tokenizer.decode(spoken) == " Yes, a lake.<|endoftext|>"
    assert language.stop_ids == [language.tokenizer.convert_tokens_to_ids("<|endoftext|>")]


def test_prompt_of_2025_uses_marker_tokens(tmp_path):
    write_checkpoint(tmp_path, "2025")
    language = load_language_model(str(tmp_path))
    prompt = language.encode(TURNS)
    words = [language.tokenizer(m["content"]).input_ids for m in TURNS]
    mark = [1, 15381, 2]
    assert list(prompt.ids) == [0, *mark, *words[0], 3, *words[1], 0, *mark, *words[2], 3]
    assert prompt.scene_at == 1
    assert language.stop_ids == [0]


@LAYOUTS
def test_adapter_trains_and_loads_with_peft(checkpoint, layout, tmp_path_factory):
    """The reference with the adapter added to its weights computes what PEFT's model does."""
    from peft import PeftModel

    folder, tensors = checkpoint
    torch.manual_seed(0)
    bridge = OlmoEarthVLMBridge(
        "random-v1.2-nano", folder, num_geo_queries=4, device="cpu", dtype=torch.float32
    )
    trained = {n for n, p in bridge.language_model.named_parameters() if p.requires_grad}
    layers = ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")
    assert len(trained) == 2 * 2 * len(layers)  # A and B, in each of two blocks
    batch = bridge.collate([bridge.prepare(random_scene())], [bridge.language.encode(TURNS[:2])])
    adapter = [p for p in bridge.language_model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(adapter, lr=1e-2)
    losses = []
    for _ in range(6):
        losses.append(bridge(batch).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]

    saved = tmp_path_factory.mktemp("bridge")
    bridge.save_pretrained(saved)
    plain = load_language_model(folder, torch.float32).model
    ids = torch.arange(20)[None]
    with torch.no_grad():
        logits = PeftModel.from_pretrained(plain, saved / "adapter")(ids).logits[0]
    changed = _with_adapter(tensors, layout, load_file(saved / "adapter/adapter_model.safetensors"))
    embeds = tensors[NAMES[layout]["embed"]][ids[0]]
    expected = text_logits(changed, layout, embeds)
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)
    assert (expected - text_logits(tensors, layout, embeds)).abs().max() > 0.1


def _with_adapter(tensors, layout, adapter, scale=32 / 16):
    changed = dict(tensors)
    names = NAMES[layout]
    for layer in range(2):
        block = names["block"].format(layer)

        def product(part, layer=layer):
            prefix = f"base_model.model.model.layers.{layer}.{part}.lora_"
            return scale * adapter[f"{prefix}B.weight"] @ adapter[f"{prefix}A.weight"]

        qkv = torch.cat([product(f"self_attn.{p}_proj") for p in "qkv"])
        for name, change in (
            (names["qkv"], qkv),
            (names["proj"], product("self_attn.dense")),
            ("mlp.fc1", product("mlp.fc1")),
            ("mlp.fc2", product("mlp.fc2")),
        ):
            key = f"{block}{name}.weight"
            changed[key] = changed[key] + change
    return changed


def _picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)


@LAYOUTS
@pytest.mark.parametrize(("size", "tiling"), [((64, 64), (1, 1)), ((700, 450), (2, 4))])
def test_picture_tokens_match_the_reference(checkpoint, layout, size, tiling):
    folder, tensors = checkpoint
    tower = load_language_model(folder, torch.float32, with_vision=True).vision
    cut = tower.cut(_picture(*size))
    assert cut.tiling == tiling
    with torch.no_grad():
        tokens = tower([cut, tower.cut(_picture(100, 80))])
    expected = picture_tokens(tensors, layout, cut.pixels.float(), cut.tiling)
    assert tokens.shape == (2, 729, 128)
    torch.testing.assert_close(tokens[0], expected, atol=2e-5, rtol=1e-4)


def test_crops_are_windows_of_the_resized_picture():
    from earthvlm.models.language.moondream2_vision import cut_crops

    picture = _picture(900, 500)
    cut = cut_crops(picture, 378, 14)
    rows, columns = cut.tiling
    fitted = picture.resize((columns * 266 + 112, rows * 266 + 112), Image.Resampling.LANCZOS)
    pixels = np.asarray(fitted)
    for index in range(rows * columns):
        top, left = index // columns * 266, index % columns * 266
        crop = cut.pixels[1 + index].permute(1, 2, 0).numpy()
        assert np.array_equal(crop, pixels[top : top + 378, left : left + 378])
    whole = np.asarray(picture.resize((378, 378), Image.Resampling.LANCZOS))
    assert np.array_equal(cut.pixels[0].permute(1, 2, 0).numpy(), whole)


@pytest.mark.parametrize(
    ("height", "width", "tiling"),
    [
        (144, 144, (1, 1)),
        (266, 5000, (1, 1)),
        (267, 267, (3, 3)),
        (300, 600, (2, 4)),
        (5000, 5000, (3, 3)),
        (1000, 3000, (2, 6)),
        (2500, 300, (7, 1)),
    ],
)
def test_tiling_by_size(height, width, tiling):
    """Worked out by hand: at least ceil(side / 266) each, at most 12, close to the aspect ratio."""
    assert choose_tiling(height, width, 266) == tiling


@pytest.mark.slow
@LAYOUTS
def test_picture_tokens_attend_in_both_directions(checkpoint, layout):
    folder, tensors = checkpoint
    torch.manual_seed(0)
    bridge = OlmoEarthVLMBridge(
        "random-v1.2-nano",
        folder,
        use_lora=False,
        num_geo_queries=4,
        device="cpu",
        dtype=torch.float32,
        use_vlm_vision=True,
    ).eval()
    scenes = [random_scene(seed=1), random_scene(seed=2)]
    questions = ["Water?", "Is there any water in this scene, or a lake?"]
    with torch.no_grad():
        answers = bridge.generate(scenes, questions, max_length=6)
        prepared = [bridge.prepare(s) for s in scenes]
        queries = bridge.encode(prepared)[1]
    embedding = tensors[NAMES[layout]["embed"]]
    for scene, question, query, answer in zip(prepared, questions, queries, answers, strict=True):
        prompt = bridge.language.encode([{"role": "user", "content": question}])
        picture = scene.picture
        seen = picture_tokens(tensors, layout, picture.pixels.float(), picture.tiling)
        ids = list(prompt.ids)
        spoken = []
        for _ in range(6):
            words = embedding[ids]
            embeds = torch.cat([words[:1], seen, query, words[1:]])
            token = text_logits(tensors, layout, embeds, prefix=730)[-1].argmax().item()
            if token in bridge.language.stop_ids:
                break
            spoken.append(token)
            ids.append(token)
        expected = bridge.language.tokenizer.decode(spoken, skip_special_tokens=True).strip()
        assert answer == expected
    assert (
        "".join(bridge.stream(scenes[0], [{"role": "user", "content": "Water?"}], 6)) == answers[0]
    )


@pytest.mark.slow
def test_vision_tower_trains_unless_frozen_and_is_saved(tmp_path, monkeypatch):
    (tmp_path / "moondream").mkdir()
    write_checkpoint(tmp_path / "moondream", "2024")
    for freeze in (False, True):
        bridge = OlmoEarthVLMBridge(
            "random-v1.2-nano",
            str(tmp_path / "moondream"),
            freeze_vlm_vision=freeze,
            num_geo_queries=4,
            device="cpu",
            dtype=torch.float32,
            use_vlm_vision=True,
        )
        batch = bridge.collate(
            [bridge.prepare(random_scene(seed=i)) for i in range(2)],
            [bridge.language.encode(TURNS[:2]), bridge.language.encode(TURNS[:2])],
        )
        bridge(batch).loss.backward()
        first = bridge.vision.encoder.embeddings.patch_embedding.weight
        assert (first.grad is None) == freeze
        monkeypatch.setattr(
            "earthvlm.models.language.language_model.preferred_dtype", lambda _: torch.bfloat16
        )
        monkeypatch.setattr("earthvlm.bridge.network.multiplies_bfloat16", lambda _: True)
        again = OlmoEarthVLMBridge(
            "random-v1.2-nano",
            str(tmp_path / "moondream"),
            freeze_vlm_vision=freeze,
            device="cpu",
            use_vlm_vision=True,
        )
        kinds = {parameter.dtype for parameter in again.vision.parameters()}
        assert kinds == {
            torch.bfloat16 if freeze else torch.float32
        }  # whose rounding loses small steps
        if freeze:
            continue
        with torch.no_grad():
            first += 0.01
        folder = tmp_path / "bridge"
        bridge.save_pretrained(folder)
        again = OlmoEarthVLMBridge.from_pretrained(folder, "cpu", torch.float32)
        assert torch.equal(again.vision.encoder.embeddings.patch_embedding.weight, first)
        (folder / "vision.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"lacks its vision\.safetensors"):
            OlmoEarthVLMBridge.from_pretrained(folder, "cpu")


def _change(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("text_model.lm_head.ln.bias"), r"lack model\.final_layernorm\.bias"),
        (lambda t: t.pop("text_model.transformer.h.1.mixer.Wqkv.bias"), r"lack .*k_proj\.bias"),
        (
            lambda t: [t.pop(name) for name in list(t) if ".transformer.h." in name],
            r"lack model\.layers\.0\.mlp\.fc1\.weight of Moondream2",
        ),
        (lambda t: t.update({"text_model.extra": torch.zeros(1)}), r"has not: text_model\.extra"),
        (
            lambda t: t.update({"text_model.transformer.h.0.mlp.fc2.bias": torch.zeros(3)}),
            r"mlp\.fc2\.bias has shape \(3,\)",
        ),
    ],
)
def test_missing_or_unexpected_tensors_are_named(tmp_path, change, message):
    write_checkpoint(tmp_path, "2024")
    _change(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        load_language_model(str(tmp_path))


def test_truncated_shard_is_found_before_loading(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, "2025", shards=3)
    last = sorted(tmp_path.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-100])
    monkeypatch.setattr(
        storage_tensors.TensorFolder, "read", lambda *_: pytest.fail("a tensor was read")
    )
    with pytest.raises(ValueError, match=f"{last.name} is damaged or truncated"):
        load_language_model(str(tmp_path))
    last.unlink()
    with pytest.raises(FileNotFoundError, match=last.name):
        load_language_model(str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a"')
    with pytest.raises(ValueError, match=r"index\.json is damaged or truncated"):
        load_language_model(str(tmp_path))


def test_low_memory_is_reported_before_loading(tmp_path, monkeypatch):
    import psutil

    write_checkpoint(tmp_path, "2024")
    free = psutil.virtual_memory()._replace(available=10_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(
        MemoryError, match=r"needs 0\.\d GB of memory on cpu, where 0\.0 GB are free"
    ):
        load_language_model(str(tmp_path))


def test_split_weights_do_not_keep_the_fused_tensor(tmp_path):
    """The three matrices of a fused tensor are copies."""
    write_checkpoint(tmp_path, "2024")
    model = load_language_model(str(tmp_path), torch.bfloat16).model
    attention = model.model.layers[0].self_attn
    assert attention.k_proj.weight.untyped_storage().nbytes() == 128 * 128 * 2
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.device.type for p in (*model.parameters(), *model.buffers())} == {"cpu"}


def test_vision_of_model_without_tower_is_rejected(tiny_language):
    with pytest.raises(ValueError, match="no vision tower"):
        load_language_model(tiny_language, with_vision=True)


def test_moondream_is_recognized_by_its_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["HfMoondream"]}))
    assert moondream2.is_moondream(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi"}))
    assert not moondream2.is_moondream(tmp_path)
