"""What a stage of training needs to go on, beside the weights that a bridge is saved with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from earthvlm.storage.sharding import full_tensor
from earthvlm.training.logging import RunningLosses
from earthvlm.training.losses import TrainingModel

# Optimizers' states by parameters' names, whole: they load into any number of processes. What never
# had a gradient has none.
WHOLE_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)


@dataclass(frozen=True)
class StageState:
    """The optimizer, the schedule, the probe, losses that are not logged yet, and fp16's scale."""

    accelerator: Accelerator
    model: TrainingModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    window: RunningLosses

    def state_dict(self) -> dict[str, object]:
        """In types that load without pickle. All processes call this together."""
        probe = self.model.probe.state_dict() if self.model.probe is not None else {}
        scaler = self.accelerator.scaler
        return {
            "optimizer": get_optimizer_state_dict(self.model, self.optimizer, options=WHOLE_STATE),
            "scheduler": self.scheduler.state_dict(),
            "probe": {name: full_tensor(tensor) for name, tensor in probe.items()},
            "window": self.window.values(),
            "scaler": scaler.state_dict() if scaler else {},
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from what `state_dict` returned. All processes call this together."""
        set_optimizer_state_dict(
            self.model, self.optimizer, state["optimizer"], options=WHOLE_STATE
        )
        self.scheduler.load_state_dict(state["scheduler"])
        if self.model.probe is not None:
            set_model_state_dict(self.model.probe, state["probe"], options=WHOLE_STATE)
        self.window.load(state["window"])
        if self.accelerator.scaler and state.get("scaler"):  # older checkpoints have none
            self.accelerator.scaler.load_state_dict(state["scaler"])
