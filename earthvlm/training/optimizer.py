"""What each stage optimizes, at which rates, and the optimizer's state in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from earthvlm.storage.sharding import full_tensor
from earthvlm.training.batches.mapped_scenes import SceneMapper
from earthvlm.training.config import TrainingConfig
from earthvlm.training.logging import RunningLosses
from earthvlm.training.losses.training_model import TrainingModel

# Full tensors by parameter name, so that a state loads into any number of processes. Parameters
# that never had a gradient have no state.
FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)


def parameter_groups(model: TrainingModel, stage: str, config: TrainingConfig) -> list[dict]:
    """The parameters that a stage trains, as AdamW takes them: each with its rate and decay."""
    bridge = model.bridge
    rate = config.encoder_learning_rate
    head = (bridge.head, _or_default(config.head_learning_rate, rate))
    parts: list[tuple[nn.Module, float]] = [
        (bridge.fusion, _or_default(config.query_learning_rate, rate)),
        head,
    ]
    if stage == "head":
        parts = [head]
    elif stage == "segmentation" and bridge.segmentation_head is not None:
        parts = [
            (bridge.segmentation_head, config.segmentation_learning_rate),
            (bridge.encoder, rate),
        ]
    elif stage != "queries":
        parts.append((bridge.encoder, rate))
    if stage == "encoder" and model.probe is not None:
        parts.append((model.probe, rate))
    if stage == "bridge":
        parts.append((bridge.language_model, config.learning_rate))
        if bridge.vision is not None:
            parts.append((bridge.vision, config.learning_rate))
    groups = [
        group for part, rate in parts for group in _split_by_decay(part, rate, config.weight_decay)
    ]
    return [group for group in groups if group["params"]]


def _or_default(rate: float | None, default: float) -> float:
    """The rate if it is given; a rate of 0 is, and trains nothing."""
    return default if rate is None else rate


def _split_by_decay(part: nn.Module, rate: float, weight_decay: float) -> list[dict]:
    """The trained parameters of a part in two groups: weights of layers, which decay, and others.

    Biases, norms, embeddings, positions and queries have no reason to be small.
    """
    decaying = {
        id(parameter)
        for module in part.modules()
        if not isinstance(module, nn.Embedding)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim > 1 and name.endswith("weight")
    }
    trained = [p for p in part.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if (id(p) in decaying) == decays], "lr": rate}
        | {"weight_decay": weight_decay if decays else 0.0}
        for decays in (True, False)
    ]


@dataclass(frozen=True)
class StageState:
    """The parts of a stage that a checkpoint holds in addition to the bridge's weights.

    mapper: maps the samples' land cover with the encoder as it was when the stage began; None where
        the encoder has not changed since, or nothing maps.
    """

    accelerator: Accelerator
    model: TrainingModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    running_losses: RunningLosses
    mapper: SceneMapper | None = None

    def state_dict(self) -> dict[str, Any]:
        """The state, in types that load without pickle. All processes call this together."""
        probe = self.model.probe.state_dict() if self.model.probe is not None else {}
        scaler = self.accelerator.scaler
        return {
            "optimizer": get_optimizer_state_dict(self.model, self.optimizer, options=FULL_STATE),
            "scheduler": self.scheduler.state_dict(),
            "probe": {name: full_tensor(tensor) for name, tensor in probe.items()},
            "running_losses": self.running_losses.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "mapper": self.mapper.state_dict() if self.mapper is not None else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. All processes call this together."""
        set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"], options=FULL_STATE)
        self.scheduler.load_state_dict(state["scheduler"])
        if self.model.probe is not None:
            set_model_state_dict(self.model.probe, state["probe"], options=FULL_STATE)
        self.running_losses.load_state_dict(state["running_losses"])
        # A checkpoint of a run in another precision has no loss scale.
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        # A checkpoint of an earlier version has no mapper.
        if self.mapper is not None and state.get("mapper"):
            self.mapper.load_state_dict(state["mapper"])
