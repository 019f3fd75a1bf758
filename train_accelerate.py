"""Train a bridge: `accelerate launch train_accelerate.py --data_dir D --output_dir O`."""

from __future__ import annotations

import argparse
import signal
import sys
from argparse import BooleanOptionalAction
from dataclasses import asdict, fields
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.publish import TrainingPublisher, on_main_process
from earthvlm.cli.options import add_visibility_options
from earthvlm.scenes.bands import BANDS, CHATEARTHNET_FOLDERS
from earthvlm.storage.tensors import GIGABYTE
from earthvlm.training.accelerator_setup import make_accelerator
from earthvlm.training.checkpoints import TrainingInterrupted, find_checkpoint
from earthvlm.training.config import BYTES_A_TRAINED_WEIGHT, TrainingConfig, check_arguments
from earthvlm.training.step import TrainingFailure
from earthvlm.training.trainer import Trainer
from earthvlm.training.training_tiles import open_training_tiles

CHATEARTHNET_BANDS = {band for bands in CHATEARTHNET_FOLDERS.values() for band in bands}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Train a bridge from OlmoEarth to a language model on ChatEarthNet.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data_dir",
        default="./chatearthnet_data",
        help="the folder with json_files and the image folders",
    )
    add(
        "--output_dir",
        default="./olmoearth_vlm_checkpoints",
        help="where the bridge, its log and its curve are written",
    )
    add("--captions", default="35", choices=("35", "4v"), help="ChatGPT-3.5's or GPT-4V's")
    add("--model_path", help="go on from a saved bridge; its own settings then hold")
    add("--olmoearth_model", default="OlmoEarth-v1-Nano", help="id, folder or random-v1.2-nano")
    add("--vlm_model", default="vikhyatk/moondream2", help="Hub id, folder or embedded")
    add(
        "--fusion_type",
        default="geospatial_queries",
        choices=("geospatial_queries",),
        help="how scenes become words",
    )
    add("--num_geo_queries", type=int, default=32, help="vectors a scene becomes")
    add(
        "--patch_size",
        type=int,
        help="pixels a token stands for, to a side (default: 8, 2 for OlmoEarth v1.3, or the "
        "saved bridge's)",
    )
    add(
        "--embedding_patch_size",
        type=int,
        help="the same where scenes are embedded for search; --retrieval_head_epochs trains it "
        "(default: --patch_size, or the model's)",
    )
    add("--freeze_olmoearth", default=True, action=BooleanOptionalAction, help="leave it as it is")
    add(
        "--use_vlm_vision",
        default=False,
        action=BooleanOptionalAction,
        help="let the language model's own vision tower see the true colours too",
    )
    add(
        "--freeze_vlm_vision",
        default=False,
        action=BooleanOptionalAction,
        help="leave that tower as it is",
    )
    add(
        "--use_lora",
        default=True,
        action=BooleanOptionalAction,
        help="train an adapter in the language model; otherwise the language model trains whole",
    )
    add("--lora_r", type=int, default=16, help="rank of the adapter")
    add("--lora_alpha", type=int, default=32, help="scale of the adapter")
    add("--batch_size", type=int, default=4, help="scenes a step and process")
    add("--accumulation_steps", type=int, default=4, help="batches a step")
    add("--num_epochs", type=int, default=1, help="passes over the tiles")
    add("--encoder_epochs", type=int, default=0, help="passes without the language model, first")
    add("--query_epochs", type=int, default=0, help="passes over larger scenes of encoded crops")
    add(
        "--retrieval_head_epochs",
        type=int,
        default=0,
        help="passes over encoded tiles, last, for search",
    )
    add(
        "--class_balanced_sampling",
        action="store_true",
        help="draw scenes of rare land cover more often",
    )
    add(
        "--feature_cache_dir",
        metavar="FOLDER",
        help="keep what a frozen encoder sees; no variations",
    )
    add("--encoder_batch_size", type=int, default=64, help="scenes a step of those")
    add("--learning_rate", type=float, default=3e-4, help="of the adapter")
    add("--encoder_learning_rate", type=float, default=1e-3, help="of what sees")
    add("--query_learning_rate", type=float, help="of the queries; the encoder's otherwise")
    add("--head_learning_rate", type=float, help="of the search head; the encoder's otherwise")
    add("--schedule", default="cosine", choices=("cosine", "linear"), help="how rates fall")
    add("--warmup_steps", type=int, default=100, help="steps until the full rate")
    add("--weight_decay", type=float, default=0.01)
    add(
        "--save_every",
        type=int,
        default=500,
        help="steps between checkpoints, besides those at the end of a stage; 0: those alone",
    )
    add(
        "--validate_every",
        type=int,
        default=200,
        help="steps between validations, besides that at the end; 0: that alone",
    )
    add(
        "--max_eval_samples",
        type=int,
        default=256,
        help="tiles of a validation, spread out; 0: all",
    )
    add("--push_to_hub", metavar="REPO", help="publish the trained bridge there, as owner/name")
    add_visibility_options(parser, "hub_")
    add("--hub_push_steps", type=int, default=0, help="steps; publish on the way too (0: never)")
    add("--resume", metavar="last|PATH", help="go on from a checkpoint, with the same arguments")
    add("--save_total_limit", type=int, default=0, help="only the newest so many; 0: all")
    add("--log_with", choices=("tensorboard", "trackio"), help="write losses to a tracker too")
    add(
        "--gradient_checkpointing",
        default=False,
        action=BooleanOptionalAction,
        help="less memory, more time",
    )
    add("--max_steps", type=int, default=0, help="stop after so many; 0 runs all epochs")
    add("--num_workers", type=int, default=2, help="processes that prepare scenes")
    add("--device", help="cpu, cuda, cuda:N or mps; chosen by accelerate otherwise")
    add("--mixed_precision", choices=("no", "bf16", "fp16"), help="as accelerate says otherwise")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train, and return how the process should exit."""
    arguments = parse_arguments(argv)
    accelerator = None
    try:
        check_arguments(vars(arguments))
        accelerator = make_accelerator(
            arguments.device, arguments.mixed_precision, arguments.output_dir, arguments.log_with
        )
        set_seed(arguments.seed)
        arguments.mixed_precision = accelerator.mixed_precision
        train(arguments, accelerator)
    except TrainingInterrupted as stopped:
        report(f"stopped after {stopped}; go on with --resume last.")
        return 128 + stopped.number  # as shells have it
    except TrainingFailure as error:  # of all processes together
        if accelerator is not None and accelerator.is_main_process:
            report(str(error))
        return 2
    except torch.OutOfMemoryError as error:
        report(
            "the GPU's memory is full: use a smaller --batch_size, or --gradient_checkpointing "
            f"({str(error).splitlines()[0]})"
        )
        return 2
    except (ValueError, OSError, MemoryError) as error:
        report(str(error))
        return 2
    except KeyboardInterrupt:
        report("interrupted; go on with --resume last where there is a checkpoint.")
        return 128 + signal.SIGINT
    finally:
        if accelerator is not None:
            accelerator.end_training()
    return 0


def report(text: str) -> None:
    """Print one line on standard error."""
    print(f"train_accelerate: {text}", file=sys.stderr)


def train(arguments: argparse.Namespace, accelerator: Accelerator) -> None:
    """Train every stage that the arguments ask for."""
    config = TrainingConfig(**{f.name: getattr(arguments, f.name) for f in fields(TrainingConfig)})
    # Before models, which take longer to come.
    train_tiles, val_tiles = open_training_tiles(config, accelerator)
    checkpoint = None
    if arguments.resume:
        checkpoint = find_checkpoint(arguments.resume, Path(config.output_dir))
        arguments.model_path = str(checkpoint)
    if arguments.log_with:
        settings = {name: value for name, value in asdict(config).items() if value is not None}
        accelerator.init_trackers("earthvlm", settings)
    publisher = None
    if arguments.push_to_hub:
        publisher = TrainingPublisher(
            arguments.push_to_hub, arguments.hub_private_repo, accelerator.print
        )
    bridge = build_bridge(arguments, accelerator)
    if publisher is not None:
        on_main_process(lambda: publisher.check(bridge.config))
    Trainer(bridge, train_tiles, val_tiles, config, accelerator, checkpoint, publisher).run()


def build_bridge(arguments: argparse.Namespace, accelerator: Accelerator) -> OlmoEarthVLMBridge:
    """The bridge to train; where its language model trains whole, say what memory that takes."""
    bridge = _make_bridge(arguments, accelerator)
    if not bridge.config.use_lora:
        weights = sum(parameter.numel() for parameter in bridge.language_model.parameters())
        accelerator.print(
            f"The language model trains whole: {weights / 1e6:,.0f} million weights, which take "
            f"{BYTES_A_TRAINED_WEIGHT * weights / GIGABYTE:.1f} GB with their gradients and "
            "AdamW's averages."
        )
    return bridge


def _make_bridge(arguments: argparse.Namespace, accelerator: Accelerator) -> OlmoEarthVLMBridge:
    """A saved bridge that is trained further, or a new one."""
    if arguments.model_path:
        bridge = OlmoEarthVLMBridge.from_pretrained(
            arguments.model_path, accelerator.device, trainable=True
        )
        patch, embedding = arguments.patch_size, arguments.embedding_patch_size
        if patch or embedding:
            config = bridge.config
            bridge.set_patch_sizes(
                patch or config.patch_size, embedding or patch or config.embedding_patch_size
            )
        return bridge
    return OlmoEarthVLMBridge(
        arguments.olmoearth_model,
        arguments.vlm_model,
        arguments.freeze_olmoearth,
        arguments.freeze_vlm_vision,
        arguments.use_lora,
        arguments.lora_r,
        arguments.lora_alpha,
        arguments.num_geo_queries,
        accelerator.device,
        # An encoder trained here must not be shown bands it never saw.
        bands=BANDS
        if arguments.freeze_olmoearth
        else tuple(band for band in BANDS if band in CHATEARTHNET_BANDS),
        use_vlm_vision=arguments.use_vlm_vision,
        patch_size=arguments.patch_size,
        embedding_patch_size=arguments.embedding_patch_size,
    )


if __name__ == "__main__":
    sys.exit(main())
