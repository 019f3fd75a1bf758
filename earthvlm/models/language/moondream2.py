"""Loading Moondream2's published weights into transformers' own modules, without remote code.

Two layouts of tensors are published: revision 2024-08-26's and that of the 2025 revisions. Both
hold a Phi-1.5 text model with queries, keys and values in one matrix, and a SigLIP-like vision
tower. Names may carry `._orig_mod`, left there by torch.compile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from earthvlm.models.int8 import quantize
from earthvlm.storage.hub import fetch
from earthvlm.storage.tensors import TensorFolder, check_memory

if TYPE_CHECKING:
    from transformers import PhiForCausalLM, PreTrainedTokenizerBase

    from earthvlm.models.language.moondream2_vision import VisionTower

# Weights, tokenizer and prompt format belong together; this is the last revision whose prompts
# consist of words.
MOONDREAM_ID = "vikhyatk/moondream2"
MOONDREAM_REVISION = "2024-08-26"
# The tokenizer of the 2025 layout has a repository of its own.
TOKENIZER_ID_2025 = "moondream/starmie-v1"

END_OF_TEXT = "<|endoftext|>"

HEAD_SIZE = 64
CONTEXT = 2048
VISION_HEADS = 16

_END = r"\.(weight|bias)"
_BLOCK = r"(?:text_model\.transformer\.h|model\.text\.blocks)\.(\d+)\."
_VISUAL = r"(?:vision_encoder\.encoder\.model\.visual|model\.vision)\."
_VISION_BLOCK = _VISUAL + r"blocks\.(\d+)\."
_LAYER = "encoder.encoder.layers.{0}."
# Published name -> name in our module; three names where one matrix holds three.
TEXT_NAMES: dict[str, tuple[str, ...]] = {
    r"text_model\.transformer\.embd\.wte\.weight|model\.text\.wte": ("model.embed_tokens.weight",),
    _BLOCK + "ln" + _END: ("model.layers.{0}.input_layernorm.{1}",),
    _BLOCK + r"(?:mixer\.Wqkv|attn\.qkv)" + _END: tuple(
        f"model.layers.{{0}}.self_attn.{part}_proj.{{1}}" for part in "qkv"
    ),
    _BLOCK + r"(?:mixer\.out_proj|attn\.proj)" + _END: ("model.layers.{0}.self_attn.dense.{1}",),
    _BLOCK + r"mlp\.(fc[12])" + _END: ("model.layers.{0}.mlp.{1}.{2}",),
    r"(?:text_model\.lm_head\.ln|model\.text\.post_ln)" + _END: ("model.final_layernorm.{0}",),
    r"(?:text_model\.lm_head\.linear|model\.text\.lm_head)" + _END: ("lm_head.{0}",),
}
VISION_NAMES: dict[str, tuple[str, ...]] = {
    _VISUAL + r"(?:patch_embed\.linear|patch_emb)" + _END: (
        "encoder.embeddings.patch_embedding.{0}",
    ),
    _VISUAL + r"pos_emb(?:ed)?": ("encoder.embeddings.position_embedding.weight",),
    _VISION_BLOCK + r"(?:norm|ln)([12])" + _END: (_LAYER + "layer_norm{1}.{2}",),
    _VISION_BLOCK + r"attn\.qkv" + _END: tuple(
        _LAYER + f"self_attn.{part}_proj.{{1}}" for part in "qkv"
    ),
    _VISION_BLOCK + r"attn\.proj" + _END: (_LAYER + "self_attn.out_proj.{1}",),
    _VISION_BLOCK + r"mlp\.(fc[12])" + _END: (_LAYER + "mlp.{1}.{2}",),
    _VISUAL + r"(?:norm|post_ln)" + _END: ("encoder.post_layernorm.{0}",),
    r"(?:vision_encoder\.projection\.mlp|model\.vision\.proj_mlp)\.(fc[12])" + _END: (
        "projection.{0}.{1}",
    ),
}
# Tensors of our modules from whose shapes the sizes are read.
TEXT_SIZES = ("model.embed_tokens.weight", "model.layers.0.mlp.fc1.weight")
VISION_SIZES = (
    "encoder.embeddings.patch_embedding.weight",
    "encoder.embeddings.position_embedding.weight",
    "encoder.encoder.layers.0.mlp.fc1.weight",
    "projection.fc1.weight",
    "projection.fc2.weight",
)
VISION_PREFIXES = ("vision_encoder.", "model.vision.")
# Moondream's detection heads, which are not loaded.
REGION_PREFIXES = ("region_model.", "region.", "model.region.")


def is_moondream(folder: Path) -> bool:
    """Whether a folder's config.json is Moondream's, a model type unknown to transformers."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    kinds = [config.get("model_type", ""), *(config.get("architectures") or ())]
    return any("moondream" in str(kind).lower() for kind in kinds)


def load_moondream_text(
    folder: Path, dtype: torch.dtype, device: torch.device, in_int8: bool = False
) -> PhiForCausalLM:
    """Load the text model as `PhiForCausalLM`, with sizes read from the tensors' shapes.

    in_int8: quantize each matrix to 8 bits as it is loaded.

    Raises ValueError for missing or unexpected tensors and damaged files, FileNotFoundError for
    missing files, MemoryError where the model does not fit.
    """
    from transformers import PhiConfig, PhiForCausalLM

    tensors = TensorFolder(folder)
    sources = _sources(tensors, TEXT_NAMES, TEXT_SIZES, skip=VISION_PREFIXES + REGION_PREFIXES)
    kept = torch.int8 if in_int8 else dtype
    check_memory(tensors.bytes_in(kept, sources), device, f"The language model in {folder}")
    shape = _shapes(tensors, sources)
    vocabulary, width = shape["model.embed_tokens.weight"]
    config = PhiConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=shape["model.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=_count(shape, r"model\.layers\.(\d+)\."),
        num_attention_heads=width // HEAD_SIZE,
        max_position_embeddings=CONTEXT,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
        hidden_act="gelu_new",
        layer_norm_eps=1e-5,
        tie_word_embeddings=False,
        dtype=dtype,
    )
    with torch.device("meta"):
        model = PhiForCausalLM(config)
    _fill(model, tensors, sources, dtype, device, in_int8=in_int8)
    # Not a weight, so it is not in the files and still on the meta device.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    return model.eval()


def load_moondream_tokenizer(folder: Path, from_hub: bool) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to the weights in a folder.

    from_hub: whether the folder was downloaded from the Hub, where the tokenizer of the 2025 layout
        has a repository of its own.
    """
    from transformers import PreTrainedTokenizerFast

    if from_hub and any(n.startswith("model.text.") for n in TensorFolder(folder).names()):
        folder = fetch(TOKENIZER_ID_2025, ("tokenizer.json",)).folder
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no tokenizer.json for its weights.")
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token=END_OF_TEXT, eos_token=END_OF_TEXT
    )


def load_moondream_vision(folder: Path, dtype: torch.dtype, device: torch.device) -> VisionTower:
    """Load the vision tower with its projection; raises as `load_moondream_text`."""
    from transformers import SiglipVisionConfig

    from earthvlm.models.language.moondream2_vision import VisionTower

    tensors = TensorFolder(folder)
    sources = _sources(tensors, VISION_NAMES, VISION_SIZES, only=VISION_PREFIXES)
    check_memory(tensors.bytes_in(dtype, sources), device, f"The vision tower in {folder}")
    shape = _shapes(tensors, sources)
    width, inputs = shape["encoder.embeddings.patch_embedding.weight"]
    patches = shape["encoder.embeddings.position_embedding.weight"][-2]
    patch_size = round((inputs / 3) ** 0.5)
    config = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=shape["encoder.encoder.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=_count(shape, r"encoder\.encoder\.layers\.(\d+)\."),
        num_attention_heads=VISION_HEADS,
        image_size=round(patches**0.5) * patch_size,
        patch_size=patch_size,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-5,
        vision_use_head=False,
    )
    hidden, _ = shape["projection.fc1.weight"]
    text_width, _ = shape["projection.fc2.weight"]
    with torch.device("meta"):
        tower = VisionTower(config, hidden, text_width)
    _fill(tower, tensors, sources, dtype, device, reshape=_as_siglip)
    embeddings = tower.encoder.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=device)[None]
    return tower.eval()


def _sources(
    tensors: TensorFolder,
    names: dict[str, tuple[str, ...]],
    measured: tuple[str, ...],
    skip: tuple[str, ...] = (),
    only: tuple[str, ...] = ("",),
) -> dict[str, tuple[str, ...]]:
    """Map published tensor names to the names in our module.

    measured: names in our module that must be there, because sizes are read from them.
    Raises ValueError that lists unexpected tensors, and missing ones among `measured`.
    """
    found, unexpected = {}, []
    for published in tensors.names():
        plain = published.replace("._orig_mod", "")
        if plain.startswith(skip) or not plain.startswith(only):
            continue
        match = next(
            ((m, ours) for pattern, ours in names.items() if (m := re.fullmatch(pattern, plain))),
            None,
        )
        if match is None:
            unexpected.append(published)
        else:
            found[published] = tuple(name.format(*match[0].groups()) for name in match[1])
    if unexpected:
        raise ValueError(
            f"The weights have tensors that Moondream2 has not: {_listed(unexpected)}."
        )
    lacking = set(measured) - {name for ours in found.values() for name in ours}
    if lacking:
        raise ValueError(f"The weights lack {_listed(sorted(lacking))} of Moondream2.")
    return found


def _shapes(
    tensors: TensorFolder, sources: dict[str, tuple[str, ...]]
) -> dict[str, tuple[int, ...]]:
    return {ours: tensors.shape(name) for name, names in sources.items() for ours in names}


def _count(shapes: dict[str, tuple[int, ...]], layer: str) -> int:
    return 1 + max(int(m[1]) for name in shapes if (m := re.match(layer, name)))


def _fill(
    module: nn.Module,
    tensors: TensorFolder,
    sources: dict[str, tuple[str, ...]],
    dtype: torch.dtype,
    device: torch.device,
    reshape: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
    in_int8: bool = False,
) -> None:
    """Load weights into a module on the meta device, one tensor at a time."""
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    missing = set(shapes)
    for published, names in sources.items():
        fused = tensors.read(published).to(device, dtype)
        for name, part in zip(names, fused.chunk(len(names)), strict=True):
            part = reshape(name, part)
            if name not in shapes or part.shape != shapes[name]:
                expected = tuple(shapes[name]) if name in shapes else "no such tensor"
                raise ValueError(
                    f"{published} has shape {tuple(fused.shape)}, which gives {name} of "
                    f"{tuple(part.shape)}; expected is {expected}."
                )
            # A copy where one matrix holds three, or each would keep all of it in memory.
            part = part.clone() if len(names) > 1 else part
            module.load_state_dict({name: part}, strict=False, assign=True)
            missing.discard(name)
            if in_int8 and name.endswith(".weight"):
                quantize(module, name.removesuffix(".weight"))
    if missing:
        raise ValueError(f"The weights lack {_listed(sorted(missing))}.")


def _as_siglip(name: str, tensor: Tensor) -> Tensor:
    """Reshape patch embeddings for a convolution, and drop the positions' batch dimension."""
    if name.endswith("patch_embedding.weight"):
        size = round((tensor.shape[1] / 3) ** 0.5)
        return tensor.unflatten(1, (3, size, size))
    return tensor.flatten(0, -2) if name.endswith("position_embedding.weight") else tensor


def _listed(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
