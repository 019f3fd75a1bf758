"""Low-rank adapters in a language model: added by PEFT for training, or merged into its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from earthvlm.models.int8 import Int8Linear
from earthvlm.models.language_model import LanguageModel

if TYPE_CHECKING:
    from peft import LoraConfig

# How PEFT names a layer's two factors in its files.
NAME = "base_model.model.{layer}.{factor}.weight"
FACTORS = ("lora_A", "lora_B")


def make_adapter_config(language: LanguageModel, rank: int, alpha: int) -> LoraConfig:
    """Make PEFT's configuration of an adapter in every layer that the family names."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(language.family.lora_targets),
        task_type="CAUSAL_LM",
    )


def add_adapter(language: LanguageModel, rank: int, alpha: int) -> nn.Module:
    """Add a trainable adapter to every layer that the family names.

    Raises ValueError that lists layers the model lacks, which PEFT ignores.
    """
    from peft import get_peft_model

    found = {layer.rpartition(".")[2] for layer in _layers(language)}
    missing = [target for target in language.family.lora_targets if target not in found]
    if missing:
        raise ValueError(f"{language.id} has no layers named {', '.join(missing)} to adapt.")
    return get_peft_model(language.model, make_adapter_config(language, rank, alpha))


def adapter_shapes(language: LanguageModel, rank: int) -> dict[str, Tensor]:
    """Return the tensors of an adapter's file on the meta device."""
    shapes = {}
    for layer, linear in _layers(language).items():
        sizes = (rank, linear.in_features), (linear.out_features, rank)
        for factor, size in zip(FACTORS, sizes, strict=True):
            shapes[NAME.format(layer=layer, factor=factor)] = torch.empty(size, device="meta")
    return shapes


@torch.no_grad()
def merge_adapter(
    language: LanguageModel, tensors: Mapping[str, Tensor], rank: int, alpha: int
) -> None:
    """Add an adapter to the weights of its layers, so that inference is as fast as without it."""
    for layer, linear in _layers(language).items():
        names = [NAME.format(layer=layer, factor=factor) for factor in FACTORS]
        if isinstance(linear, Int8Linear):
            down, up = (tensors[name].to(linear.scale) for name in names)
            linear.add_(up @ down * (alpha / rank))
        else:
            down, up = (tensors[name].to(linear.weight) for name in names)
            linear.weight.addmm_(up, down, alpha=alpha / rank)


def _layers(language: LanguageModel) -> dict[str, nn.Linear | Int8Linear]:
    return {
        name: module
        for name, module in language.model.named_modules()
        if name.rpartition(".")[2] in language.family.lora_targets
    }
