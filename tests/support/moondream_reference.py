"""A reference implementation of Moondream2, and random checkpoints of its published layouts.

It shares no code with the package, and reads tensors by their published names.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

LAYERS, WIDTH, HEADS, FEED_FORWARD = 2, 128, 2, 192
VISION_LAYERS, VISION_WIDTH, VISION_HEADS, VISION_FEED_FORWARD = 2, 32, 16, 48
CROP, PATCH, SIDE, MARGIN = 378, 14, 27, 4

# The names of the same tensors in each layout.
NAMES = {
    "2024": {
        "embed": "text_model.transformer.embd.wte.weight",
        "block": "text_model.transformer.h.{}.",
        "qkv": "mixer.Wqkv",
        "proj": "mixer.out_proj",
        "ln": "text_model.lm_head.ln",
        "head": "text_model.lm_head.linear",
        "vision": "vision_encoder.encoder.model.visual.",
        "patch": "patch_embed.linear",
        "position": "pos_embed",
        "norm": "norm",
        "last": "norm",
        "projection": "vision_encoder.projection.mlp.",
        "region": "region_model.coordinate_encoder.weight",
    },
    "2025": {
        "embed": "model.text.wte",
        "block": "model.text.blocks.{}.",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "ln": "model.text.post_ln",
        "head": "model.text.lm_head",
        "vision": "model.vision.",
        "patch": "patch_emb",
        "position": "pos_emb",
        "norm": "ln",
        "last": "post_ln",
        "projection": "model.vision.proj_mlp.",
        "region": "model.region.coord_encoder.weight",
    },
}


def random_weights(layout: str, vocabulary: int, seed: int = 0) -> dict[str, Tensor]:
    """Make random tensors of a checkpoint in a published layout."""
    names, generator = NAMES[layout], torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        scale = 0.1 if len(shape) == 1 else 1 / math.sqrt(shape[-1])
        weights[name] = around + scale * torch.randn(shape, generator=generator)

    def linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def norm(name: str, width: int) -> None:
        add(f"{name}.weight", width, around=1.0)
        add(f"{name}.bias", width)

    add(names["embed"], vocabulary, WIDTH)
    for layer in range(LAYERS):
        block = names["block"].format(layer)
        norm(f"{block}ln", WIDTH)
        linear(block + names["qkv"], WIDTH, 3 * WIDTH)
        linear(block + names["proj"], WIDTH, WIDTH)
        linear(f"{block}mlp.fc1", WIDTH, FEED_FORWARD)
        linear(f"{block}mlp.fc2", FEED_FORWARD, WIDTH)
    norm(names["ln"], WIDTH)
    linear(names["head"], WIDTH, vocabulary)

    vision = names["vision"]
    linear(vision + names["patch"], 3 * PATCH * PATCH, VISION_WIDTH)
    add(vision + names["position"], 1, SIDE * SIDE, VISION_WIDTH)
    for layer in range(VISION_LAYERS):
        block = f"{vision}blocks.{layer}."
        for number in "12":
            norm(block + names["norm"] + number, VISION_WIDTH)
        linear(f"{block}attn.qkv", VISION_WIDTH, 3 * VISION_WIDTH)
        linear(f"{block}attn.proj", VISION_WIDTH, VISION_WIDTH)
        linear(f"{block}mlp.fc1", VISION_WIDTH, VISION_FEED_FORWARD)
        linear(f"{block}mlp.fc2", VISION_FEED_FORWARD, VISION_WIDTH)
    norm(vision + names["last"], VISION_WIDTH)
    linear(names["projection"] + "fc1", 2 * VISION_WIDTH, 4 * WIDTH)
    linear(names["projection"] + "fc2", 4 * WIDTH, WIDTH)
    add(names["region"], 4, 4)
    return weights


def write_checkpoint(
    folder: Path, layout: str, shards: int = 1, compiled: bool = False
) -> dict[str, Tensor]:
    """Write weights, Moondream's config.json and the layout's tokenizer to a folder."""
    vocabulary = write_tokenizer(folder, layout)
    weights = random_weights(layout, vocabulary)
    kind = {"2024": ("moondream1", "Moondream"), "2025": ("moondream1", "HfMoondream")}[layout]
    config = {
        "model_type": kind[0],
        "architectures": [kind[1]],
        "auto_map": {"AutoModelForCausalLM": f"moondream.{kind[1]}"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    named = {
        (n.replace("mlp.", "mlp._orig_mod.") if compiled else n): t for n, t in weights.items()
    }
    if shards == 1:
        save_file(named, folder / "model.safetensors")
        return weights
    files: dict[str, dict[str, Tensor]] = {}
    for index, (name, tensor) in enumerate(named.items()):
        files.setdefault(f"model-{index % shards}.safetensors", {})[name] = tensor
    for file, tensors in files.items():
        save_file(tensors, folder / file)
    index = {"weight_map": {n: file for file, tensors in files.items() for n in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return weights


def write_tokenizer(folder: Path, layout: str) -> int:
    """Write a byte-level tokenizer of the layout's kind; return its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"] if layout == "2025" else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Question: Is there water?", "Answer: Yes, a lake."], trainer)
    if layout == "2024":
        tokenizer.add_special_tokens(["<|endoftext|>"])
        end = {f"{kind}_token": "<|endoftext|>" for kind in ("bos", "eos", "unk")}
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "CodeGenTokenizer", **end})
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    return 16000 if layout == "2025" else tokenizer.get_vocab_size()


def attend(qkv: Tensor, heads: int, allowed: Tensor | None, rotate: bool) -> Tensor:
    """Compute attention over `[L, 3 x D]`, head by head."""
    length, width = qkv.shape[0], qkv.shape[1] // 3
    size = width // heads
    outputs = []
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        query, key, value = (qkv[:, i * width : (i + 1) * width][:, at] for i in range(3))
        if rotate:
            query, key = rotary(query), rotary(key)
        scores = query @ key.T / math.sqrt(size)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)
        outputs.append(scores.softmax(1) @ value)
    assert outputs[0].shape == (length, size)
    return torch.cat(outputs, dim=1)


def rotary(x: Tensor) -> Tensor:
    """Apply RoPE to the first half of a head's 64 numbers, in pairs of i and i + 16."""
    half = x.shape[1] // 4
    place = torch.arange(x.shape[0])[:, None]
    angle = place / 10000 ** (torch.arange(half) / half)
    first, second, rest = x[:, :half], x[:, half : 2 * half], x[:, 2 * half :]
    turned = [
        first * angle.cos() - second * angle.sin(),
        second * angle.cos() + first * angle.sin(),
    ]
    return torch.cat([*turned, rest], dim=1)


def text_logits(weights: dict[str, Tensor], layout: str, embeds: Tensor, prefix: int = 0) -> Tensor:
    """Compute logits `[L, V]` of embeddings `[L, D]`; the first `prefix` attend to each other."""
    names = NAMES[layout]

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    allowed = torch.ones(len(embeds), len(embeds), dtype=torch.bool).tril()
    allowed[:prefix, :prefix] = True
    x = embeds
    for layer in range(LAYERS):
        block = names["block"].format(layer)
        normed = norm(f"{block}ln", x)
        attended = attend(linear(block + names["qkv"], normed), HEADS, allowed, rotate=True)
        hidden = F.gelu(linear(f"{block}mlp.fc1", normed), approximate="tanh")
        x = x + linear(block + names["proj"], attended) + linear(f"{block}mlp.fc2", hidden)
    return linear(names["head"], norm(names["ln"], x))


def picture_tokens(
    weights: dict[str, Tensor], layout: str, crops: Tensor, tiling: tuple[int, int]
) -> Tensor:
    """Encode crops, uint8 `[1 + rows x columns, 3, 378, 378]`, to tokens `[729, D_text]`."""
    names = NAMES[layout]
    vision = names["vision"]

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    features = []
    for crop in (crops / 255 - 0.5) / 0.5:
        patches = [
            crop[:, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH].reshape(-1)
            for r in range(SIDE)
            for c in range(SIDE)
        ]
        x = linear(vision + names["patch"], torch.stack(patches))
        x = x + weights[vision + names["position"]][0]
        for layer in range(VISION_LAYERS):
            block = f"{vision}blocks.{layer}."
            seen = linear(f"{block}attn.qkv", norm(f"{block}{names['norm']}1", x))
            x = x + linear(f"{block}attn.proj", attend(seen, VISION_HEADS, None, rotate=False))
            seen = linear(f"{block}mlp.fc1", norm(f"{block}{names['norm']}2", x))
            x = x + linear(f"{block}mlp.fc2", F.gelu(seen, approximate="tanh"))
        features.append(norm(vision + names["last"], x).reshape(SIDE, SIDE, -1))

    # Each patch of the stitched picture comes from the crop whose centre is nearest.
    rows, columns = tiling
    inner = SIDE - 2 * MARGIN

    def source(place: int, count: int) -> tuple[int, int]:
        crop = min(max((place - MARGIN) // inner, 0), count - 1)
        return crop, place - crop * inner

    stitched = torch.stack(
        [
            torch.stack(
                [
                    features[1 + r * columns + c][y, x]
                    for c, x in (source(i, columns) for i in range(columns * inner + 2 * MARGIN))
                ]
            )
            for r, y in (source(i, rows) for i in range(rows * inner + 2 * MARGIN))
        ]
    )
    near = F.adaptive_avg_pool2d(stitched.permute(2, 0, 1), (SIDE, SIDE)).flatten(1).T
    both = torch.cat([features[0].flatten(0, 1), near], dim=1)
    hidden = F.gelu(linear(names["projection"] + "fc1", both), approximate="tanh")
    return linear(names["projection"] + "fc2", hidden)
