"""Low-rank adapters in a language model: made to train by PEFT, or merged into its own layers."""

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
    """PEFT's description of an adapter in every layer that the family names."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(language.family.lora_targets),
        task_type="CAUSAL_LM",
    )


def add_adapter(language: LanguageModel, rank: int, alpha: int) -> nn.Module:
    """An adapter to train, in every layer that the family names.

    Raises ValueError that lists the layers the model lacks, about which PEFT is silent.
    """
    from peft import get_peft_model

    found = {layer.rpartition(".")[2] for layer in _layers(language)}
    missing = [target for target in language.family.lora_targets if target not in found]
    if missing:
        raise ValueError(f"{language.id} has no layers named {', '.join(missing)} to adapt.")
    return get_peft_model(language.model, make_adapter_config(language, rank, alpha))


def adapter_shapes(language: LanguageModel, rank: int) -> dict[str, Tensor]:
    """The tensors an adapter's file holds, as shapes without numbers."""
    sketch = {}
    for layer, linear in _layers(language).items():
        shapes = (rank, linear.in_features), (linear.out_features, rank)
        for factor, shape in zip(FACTORS, shapes, strict=True):
            sketch[NAME.format(layer=layer, factor=factor)] = torch.empty(shape, device="meta")
    return sketch


@torch.no_grad()
def merge_adapter(
    language: LanguageModel, tensors: Mapping[str, Tensor], rank: int, alpha: int
) -> None:
    """Add an adapter to the weights of the layers it adapts: it then costs nothing to use."""
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
