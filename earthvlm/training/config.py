"""What a training run is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

# The least whole number that each argument takes.
LEAST = {
    "num_geo_queries": 1,
    "patch_size": 1,
    "embedding_patch_size": 1,
    "lora_r": 1,
    "lora_alpha": 1,
    "batch_size": 1,
    "accumulation_steps": 1,
    "num_epochs": 0,
    "encoder_epochs": 0,
    "query_epochs": 0,
    "retrieval_head_epochs": 0,
    "encoder_batch_size": 1,
    "warmup_steps": 0,
    "save_every": 0,
    "save_total_limit": 0,
    "hub_push_steps": 0,
    "validate_every": 0,
    "max_eval_samples": 0,
    "max_steps": 0,
    "num_workers": 0,
    "seed": 0,
}
# numpy takes seeds of 32 bits. OlmoEarth was trained on patches of at most 8 pixels to a side.
MOST = {"seed": 2**32 - 1, "patch_size": 8, "embedding_patch_size": 8}
RATES = (
    "learning_rate",
    "encoder_learning_rate",
    "query_learning_rate",
    "head_learning_rate",
    "weight_decay",
)
CHOICES = {
    "captions": ("35", "4v"),
    "schedule": ("cosine", "linear"),
    "mixed_precision": ("no", "bf16", "fp16"),
}
# The stages of a run in their order, and the argument that says how often each sees the tiles.
STAGES = {
    "encoder": "encoder_epochs",
    "queries": "query_epochs",
    "bridge": "num_epochs",
    "head": "retrieval_head_epochs",
}

# In float32: the weight, its gradient, and the two averages that AdamW keeps.
BYTES_A_TRAINED_WEIGHT = 16


@dataclass(frozen=True)
class TrainingConfig:
    """What a training run is asked for; see `train_accelerate.py --help` for each.

    Raises ValueError, naming the argument, for a value that no run can have.
    """

    data_dir: str
    output_dir: str
    captions: str = "35"
    batch_size: int = 4
    accumulation_steps: int = 4
    num_epochs: int = 1
    encoder_epochs: int = 0
    query_epochs: int = 0
    retrieval_head_epochs: int = 0
    encoder_batch_size: int = 64
    class_balanced_sampling: bool = False
    feature_cache_dir: str | None = None
    learning_rate: float = 3e-4
    encoder_learning_rate: float = 1e-3
    query_learning_rate: float | None = None
    head_learning_rate: float | None = None
    schedule: str = "cosine"
    warmup_steps: int = 100
    weight_decay: float = 0.01
    gradient_checkpointing: bool = False
    save_every: int = 500
    save_total_limit: int = 0
    hub_push_steps: int = 0
    validate_every: int = 200
    max_eval_samples: int = 256
    max_steps: int = 0
    num_workers: int = 2
    seed: int = 0
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        check_arguments(asdict(self))


# What each is where nobody gives it; the folders have no such value.
DEFAULTS = {f.name: f.default for f in fields(TrainingConfig)[2:]}


def check_arguments(values: Mapping[str, object]) -> None:
    """Raise ValueError, naming the argument, for a value that no run can have.

    values: arguments of `train_accelerate.py` by name, some or all; None stands for a default.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name in sorted(given.keys() & LEAST.keys()):
        if not LEAST[name] <= given[name] <= MOST.get(name, math.inf):
            upper = f" and at most {MOST[name]}" if name in MOST else ""
            raise ValueError(
                f"--{name} must be a whole number of at least {LEAST[name]}{upper}; "
                f"{given[name]} was given."
            )
    for name in sorted(given.keys() & set(RATES)):
        if not 0 <= given[name] < math.inf:  # false for NaN too
            raise ValueError(f"--{name} must be a number of at least 0; {given[name]:g} was given.")
    for name in sorted(given.keys() & CHOICES.keys()):
        if given[name] not in CHOICES[name]:
            raise ValueError(
                f"--{name} must be one of {', '.join(CHOICES[name])}; {given[name]!r} was given."
            )
    epochs = STAGES.values()
    if given.keys() >= set(epochs) and not any(given[name] for name in epochs):
        flags = ", ".join(f"--{name}" for name in epochs)
        raise ValueError(f"Nothing would be trained: one of {flags} must be at least 1.")
