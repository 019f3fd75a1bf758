"""Start a training run: open its tiles, build or load its bridge, and train it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.scenes.bands import BANDS, CHATEARTHNET_FOLDERS
from earthvlm.storage.tensors import GIGABYTE
from earthvlm.training.arguments import list_values, render_command
from earthvlm.training.checkpointing.checkpoints import (
    check_output,
    find_checkpoint,
    remove_checkpoints,
)
from earthvlm.training.checkpointing.publisher import TrainingPublisher
from earthvlm.training.checkpointing.run_directory import earlier_runs
from earthvlm.training.config import BYTES_PER_TRAINED_WEIGHT, BridgeArguments, TrainingArguments
from earthvlm.training.process import denormals_flushed, on_main_process
from earthvlm.training.trainer import Trainer
from earthvlm.training.training_tiles import open_training_tiles

CHATEARTHNET_BANDS = {band for bands in CHATEARTHNET_FOLDERS.values() for band in bands}


@denormals_flushed()
def train(arguments: TrainingArguments, accelerator: Accelerator) -> None:
    """Open the tiles, build or load the bridge, and train it.

    Raises ValueError or OSError for data or models that cannot be used, TrainingFailure where a
    step fails, and TrainingInterrupted on a signal.
    """
    set_seed(arguments.config.seed)
    config = replace(arguments.config, mixed_precision=accelerator.mixed_precision)
    run = arguments.run
    output, checkpoint, saved = Path(config.output_dir), None, arguments.bridge.model_path
    if run.resume:
        checkpoint = find_checkpoint(run.resume, output)
        saved = str(checkpoint)
    on_main_process(lambda: check_output(output, saved, checkpoint, run.overwrite_output_dir))
    # Before the models, because they take longer to load.
    train_tiles, val_tiles = open_training_tiles(config, accelerator)
    if run.log_with:
        settings = {name: value for name, value in asdict(config).items() if value is not None}
        settings["data_dir"] = " ".join(list_values(config.data_dir))  # trackers take no lists
        accelerator.init_trackers("earthvlm", settings)
    publisher = None
    if run.push_to_hub:
        publisher = TrainingPublisher(run.push_to_hub, run.hub_private_repo, accelerator.print)
    bridge = build_bridge(replace(arguments.bridge, model_path=saved), accelerator)
    if config.segmentation_epochs and bridge.segmentation_head is None:
        bridge.add_segmentation_head()
    if publisher is not None:
        on_main_process(lambda: publisher.check(bridge.config))
    if run.overwrite_output_dir:
        on_main_process(lambda: remove_checkpoints(output, checkpoint))
    number = len(earlier_runs(bridge.config.training, checkpoint is not None)) + 1
    command = render_command(config, arguments.bridge, number=number)
    Trainer(
        bridge,
        train_tiles,
        val_tiles,
        config,
        accelerator,
        command=command,
        checkpoint=checkpoint,
        publisher=publisher,
    ).run()


def build_bridge(arguments: BridgeArguments, accelerator: Accelerator) -> OlmoEarthVLMBridge:
    """Build or load the bridge to train; without LoRA, report the memory that training takes."""
    if arguments.model_path:
        bridge = load_bridge(arguments.model_path, arguments, accelerator)
    else:
        bridge = make_bridge(arguments, accelerator)
    if not bridge.config.use_lora:
        weights = sum(parameter.numel() for parameter in bridge.language_model.parameters())
        accelerator.print(
            f"All weights of the language model train: {weights / 1e6:,.0f} million, which take "
            f"{BYTES_PER_TRAINED_WEIGHT * weights / GIGABYTE:.1f} GB with their gradients and "
            "AdamW's averages."
        )
    return bridge


def load_bridge(
    source: str, arguments: BridgeArguments, accelerator: Accelerator
) -> OlmoEarthVLMBridge:
    """Load a saved bridge, and change its patch sizes and its prompts if these are given."""
    bridge = OlmoEarthVLMBridge.from_pretrained(source, accelerator.device, trainable=True)
    patch, embedding = arguments.patch_size, arguments.embedding_patch_size
    if patch or embedding:
        saved = bridge.config
        bridge.set_patch_sizes(
            patch or saved.patch_size, embedding or patch or saved.embedding_patch_size
        )
    if arguments.scene_context is not None:
        bridge.set_prompts(scene_context=arguments.scene_context)
    if arguments.english_only is not None:
        bridge.set_prompts(english_only=arguments.english_only)
    return bridge


def make_bridge(arguments: BridgeArguments, accelerator: Accelerator) -> OlmoEarthVLMBridge:
    """Build a new bridge from its base models."""
    trained_bands = tuple(band for band in BANDS if band in CHATEARTHNET_BANDS)
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
        # An encoder that trains on these bands must not be given others later.
        bands=BANDS if arguments.freeze_olmoearth else trained_bands,
        use_vlm_vision=arguments.use_vlm_vision,
        patch_size=arguments.patch_size,
        embedding_patch_size=arguments.embedding_patch_size,
        scene_context=bool(arguments.scene_context),
        english_only=bool(arguments.english_only),
    )
