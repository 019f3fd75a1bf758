"""DeepSpeed's ZeRO-2 beneath Accelerate: processes share gradients and the optimizer's averages.

Needs the extra `deepspeed`. What DeepSpeed keeps in flat partitions is read and written here by
parameters' names, whole, as torch's own states are, so that any number of processes, with
DeepSpeed or without, goes on from a checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType
from torch import nn

from earthvlm.training_step import GRADIENT_NORM

AVERAGES = ("exp_avg", "exp_avg_sq")


def is_asked_for() -> bool:
    """Whether the launcher's configuration is one of DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"


def set_up(accelerator: Accelerator, precision: str) -> None:
    """Let Accelerate train with DeepSpeed, on CPUs too, where it itself would not.

    precision: "no" or "bf16". Weights stay in the types they have, and calculations are cast, as
    without DeepSpeed, which itself would cast the weights.

    Raises ValueError for another precision.
    """
    if precision not in ("no", "bf16"):
        raise ValueError(f"DeepSpeed trains in bf16, or no mixed precision; {precision} was given.")
    state = accelerator.state
    if state.distributed_type != DistributedType.DEEPSPEED:
        state.deepspeed_plugins = DeepSpeedPlugin()
        state.deepspeed_plugins.select(_from_accelerator_state=True)
        # In both: the second takes it from the first each time somebody asks for it.
        PartialState().distributed_type = state.distributed_type = DistributedType.DEEPSPEED
    state.deepspeed_plugin.deepspeed_config |= {
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "torch_autocast": {"enabled": precision == "bf16", "dtype": "bfloat16"},
        # A step's batches are weighted as the loop has them, not as so many equal ones.
        "gradient_accumulation_steps": 1,
        "gradient_clipping": GRADIENT_NORM,
    }


def whole_state(model: nn.Module, optimizer: object) -> dict[str, object]:
    """An optimizer's state, as `get_optimizer_state_dict` has it. All processes call this."""
    from deepspeed.utils import safe_get_full_optimizer_state

    state, groups = {}, []
    for names, flat, group in _groups(model, optimizer):
        for name, parameter in names.items():
            averages = {k: safe_get_full_optimizer_state(parameter, k).cpu() for k in AVERAGES}
            # Its own for each: torch counts every parameter's steps in place.
            state[name] = averages | {"step": optimizer.optimizer.state[flat]["step"].cpu().clone()}
        groups.append({k: v for k, v in group.items() if k != "params"} | {"params": [*names]})
    return {"state": state, "param_groups": groups}


def load_whole_state(model: nn.Module, optimizer: object, state: dict[str, object]) -> None:
    """Go on from what `whole_state`, or `get_optimizer_state_dict`, returned."""
    from deepspeed.utils import safe_set_full_optimizer_state

    saved = {name: group for group in state["param_groups"] for name in group["params"]}
    for names, flat, group in _groups(model, optimizer):
        group |= {k: v for k, v in saved[next(iter(names))].items() if k != "params"}
        for name in names.keys() & state["state"].keys():  # what had no gradient has none
            optimizer.optimizer.state[flat]["step"] = state["state"][name]["step"].clone()
            for k in AVERAGES:
                safe_set_full_optimizer_state(names[name], state["state"][name][k], k)


def start_state(model: nn.Module, optimizer: object) -> None:
    """Start every group's averages at zero, as AdamW would with its first step.

    By itself DeepSpeed (0.19.8) looks for them when the first group has taken its step, and then
    never finds those of the others.
    """
    for _, flat, _ in _groups(model, optimizer):
        averages = {k: torch.zeros_like(flat) for k in AVERAGES}
        optimizer.optimizer.state[flat] = averages | {"step": torch.zeros(())}
    optimizer._lazy_init_hp_params_optimizer_state()


def _groups(
    model: nn.Module, optimizer: object
) -> Iterator[tuple[dict[str, nn.Parameter], torch.Tensor, dict]]:
    """The parameters of each group by name, this process's part of them, and the group."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameters, flat, group in zip(
        optimizer.bit16_groups,
        optimizer.single_partition_of_fp32_groups,
        optimizer.optimizer.param_groups,
        strict=True,
    ):
        yield {name_of[id(p)]: p for p in parameters}, flat, group
