"""`earthvlm train`: train a bridge, in one process or in those of `accelerate launch`."""

from __future__ import annotations

import argparse
import shlex
import signal

from earthvlm.cli.output import USER_ERROR, print_message
from earthvlm.training.config import TrainingArguments, TrainingConfig, add_training_arguments


def add_train(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a bridge on ChatEarthNet",
        description=(
            "Train a bridge from OlmoEarth to a language model on tiles with captions.\n"
            "`accelerate launch -m earthvlm.train` runs the same in several processes."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm train --data_dir chatearthnet_data --output_dir runs/first\n"
            "  earthvlm train --data_dir chatearthnet_data --output_dir runs/first --resume last\n"
            "  accelerate launch --num_processes 4 -m earthvlm.train --data_dir chatearthnet_data"
        ),
    )
    add_training_arguments(parser)
    parser.set_defaults(run=run_train, quiet=False)


def run_train(parsed: argparse.Namespace) -> int:
    """Train as the command line says. Raises ValueError or OSError for what cannot be trained."""
    arguments = TrainingArguments.take(parsed)

    import torch

    from earthvlm.models.loading import hide_progress_bars
    from earthvlm.training.launch import train
    from earthvlm.training.process import TrainingInterrupted, make_accelerator
    from earthvlm.training.step import TrainingFailure

    hide_progress_bars()
    config, run, accelerator = arguments.config, arguments.run, None
    try:
        accelerator = make_accelerator(
            run.device, config.mixed_precision, config.output_dir, run.log_with
        )
        train(arguments, accelerator)
        if accelerator.is_main_process:
            print_message(_describe_next_step(config, is_published=run.push_to_hub is not None))
    except TrainingInterrupted as interrupted:
        print_message(f"stopped after {interrupted}; continue with --resume last.")
        return 128 + interrupted.number  # as shells report signals
    except TrainingFailure as error:  # raised by all processes
        if accelerator is not None and accelerator.is_main_process:
            print_message(str(error))
        return USER_ERROR
    except torch.OutOfMemoryError as error:
        print_message(
            "the GPU's memory is full: use a smaller --batch_size, or --gradient_checkpointing "
            f"({str(error).splitlines()[0]})"
        )
        return USER_ERROR
    except KeyboardInterrupt:
        print_message("interrupted; continue with --resume last if there is a checkpoint.")
        return 128 + signal.SIGINT
    finally:
        if accelerator is not None:
            accelerator.end_training()
    return 0


def _describe_next_step(config: TrainingConfig, *, is_published: bool) -> str:
    folder, data = shlex.quote(config.output_dir), shlex.quote(config.sources[0].name)
    publish = "" if is_published else f", publish it with `earthvlm push {folder} OWNER/NAME`"
    return (
        f"the trained bridge is in {folder}; measure it with `earthvlm evaluate --data_dir {data} "
        f"--model_path {folder} --output results.json`{publish}."
    )
