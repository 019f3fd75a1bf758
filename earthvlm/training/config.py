"""The arguments of a training run: names, defaults, help texts and checks, each in one place."""

from __future__ import annotations

import argparse
import math
import shlex
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

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
COMMAND = "accelerate launch -m earthvlm.train"

Group = TypeVar("Group")


def argument(
    default: object,
    text: str,
    *,
    least: int | None = None,
    most: float = math.inf,
    choices: Sequence[str] = (),
    metavar: str | None = None,
    shown_as: str | None = None,
    local_as: str | None = None,
    recorded: bool = True,
) -> Any:
    """Declare an argument as a dataclass field.

    Args:
        text: the help text.
        least, most: bounds of a number, both included; floats must also be finite.
        shown_as: what a recorded command shows instead of the value, which is a path.
        local_as: the same for a value that may be a local folder or a public name.
        recorded: whether a recorded command shows the argument at all.
    """
    return field(
        default=default,
        metadata={
            "help": text,
            "least": least,
            "most": most,
            "choices": choices,
            "metavar": metavar,
            "shown_as": shown_as,
            "local_as": local_as,
            "recorded": recorded,
        },
    )


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

    data_dir: str = argument(
        "./chatearthnet_data",
        "folder with json_files and the image folders",
        shown_as="DATA",
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


def add_arguments(parser: argparse._ActionsContainer, group: type) -> None:
    """Add a command-line argument for each field of a dataclass."""
    hints = typing.get_type_hints(group)
    for each in fields(group):
        kind = _strip_none(hints[each.name])
        default = " (default: %(default)s)" if each.default is not None else ""
        options: dict[str, Any] = {"default": each.default, "help": each.metadata["help"] + default}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = kind
            options["choices"] = each.metadata["choices"] or None
            options["metavar"] = each.metadata["metavar"]
        parser.add_argument(f"--{each.name}", **options)


def take_arguments(group: Callable[..., Group], arguments: argparse.Namespace) -> Group:
    """Build a dataclass from parsed arguments. Raises ValueError as the dataclass does."""
    names = [each.name for each in fields(cast("Any", group))]
    return group(**{name: getattr(arguments, name) for name in names})


def check_arguments(group: Any) -> None:
    """Raise ValueError, naming the argument, for a value out of its bounds or choices."""
    hints = typing.get_type_hints(type(group))
    for each in fields(group):
        value = getattr(group, each.name)
        if value is not None:
            _check(each, _strip_none(hints[each.name]), value)


def _check(each: Field, kind: type, value: Any) -> None:
    least, most = each.metadata["least"], each.metadata["most"]
    if least is not None and kind is int and not least <= value <= most:
        upper = f" and at most {most}" if most < math.inf else ""
        raise ValueError(
            f"--{each.name} must be a whole number of at least {least}{upper}; {value} was given."
        )
    if least is not None and kind is float and not least <= value < math.inf:  # false for NaN too
        raise ValueError(
            f"--{each.name} must be a number of at least {least}; {value:g} was given."
        )
    choices = each.metadata["choices"]
    if choices and value not in choices:
        raise ValueError(f"--{each.name} must be one of {', '.join(choices)}; {value!r} was given.")


def _strip_none(hint: Any) -> type:
    """The type that a hint such as `int | None` allows besides None."""
    if isinstance(hint, types.UnionType):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def render_command(*groups: Any, number: int) -> str:
    """The command that starts a run with these arguments, for its published record.

    Arguments at their defaults are left out. Placeholders such as DATA replace local paths.
    number: of the run, counted from 1, among those that trained the bridge.
    """
    words = [COMMAND]
    for group in groups:
        for each in fields(group):
            value, shown_as = getattr(group, each.name), each.metadata["shown_as"]
            required = shown_as is not None and each.default is not None
            if not each.metadata["recorded"] or (value == each.default and not required):
                continue
            local_as = each.metadata["local_as"]
            if local_as is not None and Path(value).is_dir():
                shown_as = local_as
            if shown_as is not None:
                value = shown_as.format(number=number, previous=number - 1)
            if isinstance(value, bool):
                words.append(f"--{each.name}" if value else f"--no-{each.name}")
            else:
                words.append(f"--{each.name} {shlex.quote(str(value))}")
    return " ".join(words)
