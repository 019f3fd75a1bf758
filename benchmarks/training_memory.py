"""Compute the memory that training takes for each language model and encoder.

python -m benchmarks.training_memory

Models are built at their full size on the meta device and run through one forward pass in bfloat16;
the tensors kept for the backward pass are summed. CUDA and its kernels need about 1 GB in addition.
"""

from __future__ import annotations

from typing import Any

import torch
from olmoearth_pretrain_minimal import ModelID
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from earthvlm.models.language.chat_templates import FAMILIES
from earthvlm.models.olmoearth import OlmoEarthEncoder
from earthvlm.models.query_encoder import GeospatialQueryEncoder, SceneEmbeddingHead
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.storage.tensors import GIGABYTE
from earthvlm.training.config import BYTES_PER_TRAINED_WEIGHT

BATCH = 4
TOKENS = 192  # 32 queries, and a question with a caption of ChatEarthNet's
SHARDS = 8

LANGUAGE_MODELS = {
    "SmolLM2-135M": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
        )
    ),
    "SmolLM2-1.7B": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=24,
            num_attention_heads=32,
            tie_word_embeddings=True,
        )
    ),
    "Moondream2 (text)": lambda: PhiForCausalLM(
        PhiConfig(
            vocab_size=51200,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=24,
            num_attention_heads=32,
        )
    ),
}


def main() -> None:
    print(f"Batches of {BATCH} scenes with {TOKENS} tokens each, bfloat16, LoRA of rank 16.\n")
    print(
        "| language model | weights | trained | activations | with checkpointing | "
        f"one GPU | one of {SHARDS}, FSDP2 | one GPU, `--no-use_lora` |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, make in LANGUAGE_MODELS.items():
        with torch.device("meta"):
            model = make().to(torch.bfloat16)
        family = FAMILIES[model.config.model_type]
        config = LoraConfig(r=16, target_modules=list(family.lora_targets), task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        frozen = 2 * _count(model, trained=False)
        with torch.device("meta"):
            extra = (
                GeospatialQueryEncoder(128, model.config.hidden_size, 32),
                SceneEmbeddingHead(128, model.config.hidden_size, SENTENCE_DIM),
            )
        weights = _count(model) + sum(_count(part) for part in extra)
        trained = BYTES_PER_TRAINED_WEIGHT * weights
        kept, checkpointed = _kept(model), _checkpointed(model)
        row: list[float] = [frozen, trained, kept, checkpointed]
        row += [frozen + trained + kept, (frozen + trained) / SHARDS + _largest(model) + kept]
        row.append(trained + BYTES_PER_TRAINED_WEIGHT * frozen // 2 + kept)
        print(f"| {name} | " + " | ".join(f"{x / GIGABYTE:.2f} GB" for x in row) + " |")
    print("\n| encoder | frozen | trained |\n|---|---|---|")
    for model_id in ModelID:
        _, version, size = model_id.value.lower().split("-")
        with torch.device("meta"):
            encoder = OlmoEarthEncoder(f"random-{version.replace('_', '.')}-{size}")
        count = sum(p.numel() for p in encoder.parameters())
        frozen, trained = 4 * count, BYTES_PER_TRAINED_WEIGHT * count
        print(f"| {model_id.value} | {frozen / GIGABYTE:.2f} GB | {trained / GIGABYTE:.2f} GB |")


def _count(module: nn.Module, trained: bool = True) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad == trained)


def get_decoder(model: PeftModel) -> Any:
    """The language model without its output layer."""
    language: Any = model.get_base_model()
    return language.get_decoder()


def _kept(model: PeftModel) -> int:
    """Bytes of the activations that a forward pass keeps for the backward pass."""
    weights = {id(p) for p in model.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in weights:
            seen[id(base)] = base  # a reference, so that its id is not reused
        return tensor

    decoder = get_decoder(model)
    embeds = torch.empty(
        BATCH, TOKENS, model.config.hidden_size, dtype=torch.bfloat16, device="meta"
    ).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # A given mask, because transformers reads values to make one, which meta tensors lack.
        mask = torch.zeros(BATCH, 1, TOKENS, TOKENS, dtype=torch.bfloat16, device="meta")
        hidden = decoder(
            inputs_embeds=embeds, attention_mask=mask, use_cache=False
        ).last_hidden_state
        logits = model.get_output_embeddings()(hidden).float()
        labels = torch.zeros(BATCH * TOKENS, dtype=torch.long, device="meta")
        nn.functional.cross_entropy(logits.flatten(0, 1), labels)
    return sum(tensor.numel() * tensor.element_size() for tensor in seen.values())


def _checkpointed(model: PeftModel) -> int:
    """The same with checkpointing: each layer keeps its input, and one layer its activations."""
    layers = model.config.num_hidden_layers
    inputs = layers * BATCH * TOKENS * model.config.hidden_size * 2
    logits = BATCH * TOKENS * model.config.vocab_size * 6
    return inputs + logits + (_kept(model) - logits) // layers


def _largest(model: PeftModel) -> int:
    """Bytes of the largest gathered parts: two layers, and the weights outside of layers."""
    decoder = get_decoder(model)
    layer = 2 * sum(p.numel() for p in decoder.layers[0].parameters())
    rest = 2 * sum(p.numel() for p in model.parameters()) - layer * len(decoder.layers)
    return rest + 2 * layer


if __name__ == "__main__":
    main()
