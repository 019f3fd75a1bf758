"""Low-rank adapters in a language model: added by PEFT for training, or merged into its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from earthvlm.models.adapter_config import ALL_LINEAR, AdapterConfig, matches
from earthvlm.models.int8 import Int8Linear
from earthvlm.models.language.language_model import LanguageModel

if TYPE_CHECKING:
    from peft import LoraConfig

# How PEFT names a layer's two factors in its files.
NAME = "base_model.model.{layer}.{factor}.weight"
FACTORS = ("lora_A", "lora_B")


def default_adapter(language: LanguageModel, rank: int, alpha: float) -> AdapterConfig:
    """Describe an adapter in every layer that the family of a language model names."""
    return AdapterConfig(rank, alpha, language.family.lora_targets)


def make_peft_config(adapter: AdapterConfig) -> LoraConfig:
    """Make PEFT's configuration of an adapter."""
    from peft import LoraConfig

    return LoraConfig(**adapter.entries(), task_type="CAUSAL_LM")


def add_adapter(language: LanguageModel, adapter: AdapterConfig) -> nn.Module:
    """Add a trainable adapter to a language model.

    Raises ValueError that lists layers the model lacks, which PEFT ignores, and for layers that
    are not linear.
    """
    from peft import get_peft_model

    adapted_layers(language, adapter)
    return get_peft_model(language.model, make_peft_config(adapter))


def adapter_shapes(language: LanguageModel, adapter: AdapterConfig) -> dict[str, Tensor]:
    """Return the tensors of an adapter's file on the meta device. Raises as `adapted_layers`."""
    shapes = {}
    for layer, linear in adapted_layers(language, adapter).items():
        rank = adapter.rank_of(layer)
        sizes = (rank, linear.in_features), (linear.out_features, rank)
        for factor, size in zip(FACTORS, sizes, strict=True):
            shapes[NAME.format(layer=layer, factor=factor)] = torch.empty(size, device="meta")
    return shapes


@torch.no_grad()
def merge_adapter(
    language: LanguageModel, tensors: Mapping[str, Tensor], adapter: AdapterConfig
) -> None:
    """Add an adapter to the weights of its layers, so that inference is as fast as without it."""
    for layer, linear in adapted_layers(language, adapter).items():
        scale = adapter.scale_of(layer)
        names = [NAME.format(layer=layer, factor=factor) for factor in FACTORS]
        if isinstance(linear, Int8Linear):
            down, up = (tensors[name].to(linear.scale) for name in names)
            linear.add_(up @ down * scale)
        else:
            down, up = (tensors[name].to(linear.weight) for name in names)
            linear.weight.addmm_(up, down, alpha=scale)


def adapted_layers(
    language: LanguageModel, adapter: AdapterConfig
) -> dict[str, nn.Linear | Int8Linear]:
    """Return the layers that an adapter changes, by name.

    Raises ValueError for targets that no layer has, and for layers that are not linear.
    """
    modules = dict(language.model.named_modules())
    if isinstance(adapter.targets, str) and adapter.targets.lower() == ALL_LINEAR:
        output = language.model.get_output_embeddings()
        return {
            name: module
            for name, module in modules.items()
            if isinstance(module, nn.Linear | Int8Linear) and module is not output
            if not adapter.excludes(name)
        }
    found = {}
    for name, module in modules.items():
        if adapter.adapts(name):
            if not isinstance(module, nn.Linear | Int8Linear):
                kind = type(module).__name__
                raise ValueError(f"{name} of {language.id} cannot be adapted: it is a {kind}.")
            found[name] = module
    missing: Sequence[str] = () if found else (str(adapter.targets),)
    if not isinstance(adapter.targets, str):
        missing = [
            name for name in adapter.targets if not any(matches((name,), m) for m in modules)
        ]
    if missing or not found:
        raise ValueError(f"{language.id} has no layers named {', '.join(missing)} to adapt.")
    return found
