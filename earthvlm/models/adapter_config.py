"""PEFT's configuration of an adapter: followed, or refused by its entries."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# PEFT's name of the file, wherever it is written.
PEFT_CONFIG_FILE = "adapter_config.json"
ALL_LINEAR = "all-linear"

FOLLOWED = (
    *("r", "lora_alpha", "use_rslora", "target_modules", "exclude_modules"),
    *("rank_pattern", "alpha_pattern", "lora_dropout"),
)
# Entries that change nothing about a trained adapter: records, and settings of methods that other
# entries, which are refused, turn on.
INERT = {
    *("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version"),
    *("peft_type", "task_type", "megatron_core", "layers_pattern", "qalora_group_size"),
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config", "runtime_config"),
}
# How an adapter began does not matter, unless that changed the language model's own weights too.
HARMLESS_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class AdapterConfig:
    """A low-rank adapter: in which layers, of which rank, and how it is scaled.

    Attributes:
        rank: of the factors.
        alpha: the product of the factors is multiplied by alpha / rank, or by alpha / sqrt(rank)
            with `use_rslora`.
        targets: last parts of the adapted layers' names, a regular expression of whole names, or
            "all-linear".
        excluded: the same for layers that are left out.
        use_rslora: rank-stabilised scaling (Kalajdzievski 2023, arXiv 2312.03732).
        rank_pattern: ranks of the layers whose names end in a match of the key.
        alpha_pattern: the same for alpha.
        dropout: of the adapter's input in training.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] | str
    excluded: tuple[str, ...] | str = ()
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    dropout: float = 0.0

    @classmethod
    def read(cls, path: Path) -> AdapterConfig:
        """Read what PEFT wrote.

        Raises ValueError, naming the entry, for what cannot be followed, and FileNotFoundError
        where there is no file.
        """
        try:
            values = json.loads(path.read_bytes())
            if values["peft_type"] != "LORA":
                raise ValueError(f"{path} is of peft_type {values['peft_type']}, not LORA.")
            _refuse_unsupported(path, values)
            patterns = [values.get(name) or {} for name in ("rank_pattern", "alpha_pattern")]
            names = [values["target_modules"], values.get("exclude_modules") or ()]
            for pattern in (*patterns[0], *patterns[1], *(n for n in names if isinstance(n, str))):
                re.compile(pattern)
            return cls(
                rank=_positive(values, "r", int),
                alpha=_positive(values, "lora_alpha", int | float),
                targets=_names(names[0]),
                excluded=_names(names[1]),
                use_rslora=bool(values.get("use_rslora")),
                rank_pattern=dict(patterns[0]),
                alpha_pattern=dict(patterns[1]),
                dropout=float(values.get("lora_dropout") or 0),
            )
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, re.error) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} is no configuration of a LoRA adapter: {reason}.") from error

    def entries(self) -> dict[str, Any]:
        """Return the entries as PEFT names them."""
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": _as_peft(self.targets),
            "exclude_modules": _as_peft(self.excluded) or None,
            "use_rslora": self.use_rslora,
            "rank_pattern": dict(self.rank_pattern),
            "alpha_pattern": dict(self.alpha_pattern),
            "lora_dropout": self.dropout,
        }

    def scaling_entries(self) -> dict[str, Any]:
        """Return what changes answers besides the weights, rank and alpha; {} by default."""
        named = {"use_rslora": self.use_rslora, "alpha_pattern": dict(self.alpha_pattern)}
        return {name: value for name, value in named.items() if value}

    def adapts(self, layer: str) -> bool:
        """Return whether a layer of this name is adapted, for targets other than "all-linear"."""
        return matches(self.targets, layer) and not self.excludes(layer)

    def excludes(self, layer: str) -> bool:
        """Return whether a layer of this name is left out by name."""
        return matches(self.excluded, layer)

    def rank_of(self, layer: str) -> int:
        """Return the rank of a layer's adapter."""
        return _look_up(self.rank_pattern, layer, self.rank)

    def scale_of(self, layer: str) -> float:
        """Return what the product of a layer's factors is multiplied by."""
        rank, alpha = self.rank_of(layer), _look_up(self.alpha_pattern, layer, self.alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _refuse_unsupported(path: Path, values: Mapping[str, Any]) -> None:
    start = values.get("init_lora_weights")
    refused = [
        name
        for name, value in values.items()
        if value and name not in FOLLOWED and name not in INERT and name != "init_lora_weights"
        if not (name == "bias" and value == "none")
    ]
    if start not in HARMLESS_STARTS:
        refused.append(f"init_lora_weights {start!r}")
    if refused:
        raise ValueError(
            f"{path} sets {', '.join(refused)}, which earthvlm does not support: it follows "
            f"{', '.join(FOLLOWED)}."
        )


def _positive(values: Mapping[str, Any], name: str, kind: Any) -> Any:
    value = values[name]
    if isinstance(value, bool) or not isinstance(value, kind) or not value > 0:
        raise TypeError(f"{name} is {value!r}")
    return value


def _names(given: Any) -> tuple[str, ...] | str:
    if isinstance(given, str):
        return given
    if not all(isinstance(name, str) for name in given):
        raise TypeError("a layer's name is no text")
    return tuple(sorted(given))


def _as_peft(names: tuple[str, ...] | str) -> list[str] | str:
    return names if isinstance(names, str) else list(names)


def matches(names: tuple[str, ...] | str, layer: str) -> bool:
    """Return whether PEFT takes a layer to be named: in whole, or from a dot in its name on."""
    if isinstance(names, str):
        return bool(names) and re.fullmatch(names, layer) is not None
    return any(layer == name or layer.endswith(f".{name}") for name in names)


def _look_up(pattern: Mapping[str, Any], layer: str, default: Any) -> Any:
    """Return the value of the first key that a layer's name ends in, as PEFT does."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", layer):
            return value
    return default
