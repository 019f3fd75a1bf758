"""What a training run is asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields

# In float32: the weight, its gradient, and the two averages that AdamW keeps.
BYTES_A_TRAINED_WEIGHT = 16


@dataclass(frozen=True)
class TrainingConfig:
    """What a training run is asked for; see `train_accelerate.py --help` for each."""

    data_dir: str
    output_dir: str
    captions: str = "35"
    batch_size: int = 4
    accumulation_steps: int = 4
    num_epochs: int = 1
    encoder_epochs: int = 0
    query_epochs: int = 0
    head_epochs: int = 0
    encoder_batch_size: int = 64
    balance: bool = False
    cache_tokens: str | None = None
    learning_rate: float = 3e-4
    encoder_learning_rate: float = 1e-3
    query_learning_rate: float | None = None
    head_learning_rate: float | None = None
    schedule: str = "cosine"
    warmup_steps: int = 100
    weight_decay: float = 0.01
    gradient_checkpointing: bool = False
    save_every: int = 0
    keep_checkpoints: int = 0
    push_every: int = 0
    validate_every: int = 0
    validate_tiles: int = 0
    max_steps: int = 0
    num_workers: int = 2
    seed: int = 0
    mixed_precision: str = "no"


# What each is where nobody gives it; the folders have no such value.
DEFAULTS = {f.name: f.default for f in fields(TrainingConfig)[2:]}
