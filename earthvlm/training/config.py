"""The arguments of a training run: names, defaults, help texts and checks, each in one place."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from earthvlm.data.sources.weighted_source import WeightedSource
from earthvlm.training.arguments import (
    add_arguments,
    argument,
    check_arguments,
    list_values,
    take_arguments,
)

# The stages of a run in their order, and the argument that sets each stage's epochs.
STAGES = {
    "segmentation": "segmentation_epochs",
    "encoder": "encoder_epochs",
    "queries": "query_epochs",
    "bridge": "num_epochs",
    "head": "retrieval_head_epochs",
}
# In float32: the weight, its gradient, and AdamW's two averages.
BYTES_PER_TRAINED_WEIGHT = 16
LARGEST_SEED = 2**32 - 1  # numpy takes seeds of 32 bits
LARGEST_PATCH = 8  # OlmoEarth was trained on patches of 1 to 8 pixels


@dataclass(frozen=True)
class BridgeArguments:
    """The bridge to train: a new one, or a saved one (`model_path`).

    Raises ValueError, naming the argument, for a value out of its bounds.
    """

    model_path: str | None = argument(
        None, "saved bridge to train further, with its own settings", local_as="RUN{previous}"
    )
    olmoearth_model: str = argument(
        "OlmoEarth-v1-Nano",
        "encoder: id, folder, or random-v1.2-nano for random weights",
        local_as="OLMOEARTH",
    )
    vlm_model: str = argument(
        "vikhyatk/moondream2",
        "language model: Hub id, folder, or embedded (SmolLM2-135M)",
        local_as="VLM",
    )
    fusion_type: str = argument(
        "geospatial_queries",
        "how a scene enters the language model",
        choices=("geospatial_queries",),
    )
    num_geo_queries: int = argument(32, "learned queries per scene", least=1)
    patch_size: int | None = argument(
        None,
        "pixels per side of a patch (default: 8, 2 for OlmoEarth v1.3, or the saved bridge's)",
        least=1,
        most=LARGEST_PATCH,
    )
    embedding_patch_size: int | None = argument(
        None,
        "patch size of search embeddings, which --retrieval_head_epochs trains "
        "(default: --patch_size, or the saved bridge's)",
        least=1,
        most=LARGEST_PATCH,
    )
    scene_context: bool | None = argument(
        None,
        "write facts and measurements of a scene into the prompt "
        "(default: no, or as the saved bridge)",
    )
    english_only: bool | None = argument(
        None,
        "answer no question in another language: for training on English alone "
        "(default: no, or as the saved bridge)",
    )
    freeze_olmoearth: bool = argument(True, "keep the encoder's weights fixed")
    use_vlm_vision: bool = argument(
        False, "also give the language model's own vision tower the true-colour image"
    )
    freeze_vlm_vision: bool = argument(False, "keep that vision tower's weights fixed")
    use_lora: bool = argument(
        True, "train a LoRA adapter in the language model; otherwise train all of its weights"
    )
    lora_r: int = argument(16, "rank of the adapter", least=1)
    lora_alpha: int = argument(32, "scale of the adapter", least=1)

    def __post_init__(self) -> None:
        check_arguments(self)


@dataclass(frozen=True)
class TrainingConfig:
    """What to train on, for how long, and at which rates.

    Raises ValueError, naming the argument, for a value out of its bounds.
    """

    data_dir: str | Sequence[str] = argument(
        "./chatearthnet_data",
        "ChatEarthNet's folder, a folder with metadata.jsonl, a conversation file or a dataset on "
        "the Hub; several with weights as in --data_dir A=3 --data_dir B=1",
        shown_as="DATA",
        repeated=True,
    )
    output_dir: str = argument(
        "./olmoearth_vlm_checkpoints",
        "folder for the bridge, its log and its checkpoints",
        shown_as="RUN{number}",
    )
    captions: str = argument("35", "captions by ChatGPT-3.5 or by GPT-4V", choices=("35", "4v"))
    batch_size: int = argument(4, "scenes per batch and process", least=1)
    accumulation_steps: int = argument(4, "batches per optimizer step", least=1)
    num_epochs: int = argument(1, "epochs of the whole bridge", least=0)
    segmentation_epochs: int = argument(
        0, "epochs of the encoder and the head that maps land cover, at the beginning", least=0
    )
    patches_dir: str | None = argument(
        None,
        "folder of labelled patches, for --segmentation_epochs",
        metavar="FOLDER",
        shown_as="PATCHES",
    )
    patch_labels: str | None = argument(
        None,
        "JSON file on the masks and covers of --patches_dir, and on the places to hold out",
        metavar="FILE",
    )
    encoder_epochs: int = argument(
        0, "epochs of the encoder, before and without the language model", least=0
    )
    query_epochs: int = argument(0, "epochs of the queries alone, on feature mosaics", least=0)
    retrieval_head_epochs: int = argument(
        0, "epochs of the search head alone, on pooled features, at the end", least=0
    )
    encoder_batch_size: int = argument(
        64, "scenes per batch and process in the encoder's and the queries' stage", least=1
    )
    context_share: float = argument(
        0.5, "share of the samples whose prompt has the context of --scene_context", least=0, most=1
    )
    follow_map: bool = argument(
        False,
        "answers follow the map in the context also where labels say otherwise: a last run, after "
        "which they agree with it",
    )
    class_balanced_sampling: bool = argument(False, "draw tiles of rare land cover more often")
    feature_cache_dir: str | None = argument(
        None,
        "cache a frozen encoder's features there; disables augmentation",
        metavar="FOLDER",
        shown_as="CACHE",
    )
    learning_rate: float = argument(3e-4, "rate of the language model's weights", least=0)
    encoder_learning_rate: float = argument(1e-3, "rate of the encoder", least=0)
    query_learning_rate: float | None = argument(
        None, "rate of the queries (default: the encoder's)", least=0
    )
    head_learning_rate: float | None = argument(
        None, "rate of the search head (default: the encoder's)", least=0
    )
    segmentation_learning_rate: float = argument(
        1e-3, "rate of the head that maps land cover", least=0
    )
    schedule: str = argument(
        "cosine", "decay of the rates after warmup", choices=("cosine", "linear")
    )
    warmup_steps: int = argument(100, "steps until the full rates", least=0)
    weight_decay: float = argument(0.01, "AdamW's decay of layers' weights", least=0)
    gradient_checkpointing: bool = argument(False, "use less memory and a third more time")
    save_every: int = argument(
        500, "steps between checkpoints; 0 writes them only at the end of a stage", least=0
    )
    save_total_limit: int = argument(0, "keep only the newest N checkpoints; 0 keeps all", least=0)
    hub_push_steps: int = argument(
        0, "steps between pushes of checkpoints; 0 pushes only the trained bridge", least=0
    )
    validate_every: int = argument(
        200, "steps between validations; 0 validates only at the end", least=0
    )
    max_eval_samples: int = argument(
        256, "validation tiles, spread over the split; 0 takes all", least=0
    )
    max_steps: int = argument(
        0, "steps of the bridge's stage at most; 0 runs all its epochs", least=0
    )
    num_workers: int = argument(2, "data loader processes", least=0)
    seed: int = argument(0, "seed of all random numbers", least=0, most=LARGEST_SEED)
    mixed_precision: str | None = argument(
        None,
        "precision of the computation (default: the launcher's)",
        choices=("no", "bf16", "fp16"),
    )

    def __post_init__(self) -> None:
        check_arguments(self)
        if not any(getattr(self, name) for name in STAGES.values()):
            flags = ", ".join(f"--{name}" for name in STAGES.values())
            raise ValueError(f"Nothing would be trained: one of {flags} must be at least 1.")
        assert self.sources  # raises ValueError for a weight that is no number above 0

    @property
    def sources(self) -> list[WeightedSource]:
        """What to train on. Raises ValueError for a weight that is not above 0."""
        return [WeightedSource.parse(each) for each in list_values(self.data_dir)]


@dataclass(frozen=True)
class RunArguments:
    """Where a run computes, resumes, logs and publishes; nothing here changes what it trains."""

    device: str | None = argument(
        None, "cpu, cuda, cuda:N or mps (default: Accelerate's choice)", recorded=False
    )
    resume: str | None = argument(
        None,
        "continue from a checkpoint, with the same arguments",
        metavar="last|FOLDER",
        recorded=False,
    )
    overwrite_output_dir: bool = argument(
        False, "replace the run in --output_dir and remove its checkpoints", recorded=False
    )
    log_with: str | None = argument(
        None,
        "also log to a tracker",
        choices=("tensorboard", "trackio"),
        recorded=False,
    )
    push_to_hub: str | None = argument(
        None,
        "publish the trained bridge in this Hub repository",
        metavar="OWNER/NAME",
        recorded=False,
    )
    hub_private_repo: bool | None = argument(
        None,
        "make the repository private (with --no-: public) and refuse one that is not "
        "(default: keep an existing one as it is)",
        recorded=False,
    )


@dataclass(frozen=True)
class TrainingArguments:
    """All arguments of the command line, by their purpose."""

    bridge: BridgeArguments
    config: TrainingConfig
    run: RunArguments

    @classmethod
    def take(cls, parsed: argparse.Namespace) -> TrainingArguments:
        """Check and group parsed arguments. Raises ValueError, naming the argument."""
        return cls(
            take_arguments(BridgeArguments, parsed),
            take_arguments(TrainingConfig, parsed),
            take_arguments(RunArguments, parsed),
        )


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every argument of a training run, in groups."""
    for title, group in (
        ("bridge", BridgeArguments),
        ("training", TrainingConfig),
        ("run", RunArguments),
    ):
        add_arguments(parser.add_argument_group(title), group)
