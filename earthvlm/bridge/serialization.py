"""Writing and reading a bridge's files: its configuration and all weights training changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from earthvlm._version import __version__
from earthvlm.bridge.base_models import find_language_model
from earthvlm.bridge.config import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    ADAPTER_FOLDER,
    BRIDGE_FILES,
    CONFIG_FILE,
    ENCODER_FILE,
    FUSION_FILE,
    LANGUAGE_FILE,
    SEGMENTATION_FILE,
    VISION_FILE,
    BridgeConfig,
    bridge_revision,
    list_parts,
    read_configs,
)
from earthvlm.bridge.network import BridgeNetwork
from earthvlm.models.adapter_config import PEFT_CONFIG_FILE, AdapterConfig
from earthvlm.models.int8 import Int8Linear, quantize_all
from earthvlm.models.lora import adapter_shapes, make_peft_config, merge_adapter
from earthvlm.storage.files import replace_files
from earthvlm.storage.hub import BUNDLED, LOCAL_REVISION, check_source, fetch
from earthvlm.storage.sharding import full_tensor
from earthvlm.storage.tensors import read_tensors, to_storage_dtype

Bridge = TypeVar("Bridge", bound=BridgeNetwork)


def collect_states(bridge: BridgeNetwork) -> dict[str, dict[str, Tensor]]:
    """Collect the weights that training changes, by the file they are saved in.

    Where weights are sharded over processes, all of them must call this; each gets full tensors.
    """
    return {
        file: {name: full_tensor(tensor) for name, tensor in state.items()}
        for file, state in _states(bridge).items()
    }


def _states(bridge: BridgeNetwork) -> dict[str, dict[str, Tensor]]:
    states: dict[str, dict[str, Tensor]] = {FUSION_FILE: {}}
    for name, part in (("fusion", bridge.fusion), ("head", bridge.head)):
        for key, tensor in part.state_dict().items():
            states[FUSION_FILE][f"{name}.{key}"] = tensor
    if bridge.segmentation_head is not None:
        states[SEGMENTATION_FILE] = bridge.segmentation_head.state_dict()
    if bridge.merged_adapter is not None:
        states[ADAPTER_FILE] = bridge.merged_adapter
    elif bridge.config.use_lora:
        from peft import get_peft_model_state_dict

        states[ADAPTER_FILE] = get_peft_model_state_dict(
            bridge.language_model, save_embedding_layers=False
        )
    else:
        states[LANGUAGE_FILE] = _language_state(bridge.language.model)
    if not bridge.config.freeze_olmoearth:
        states[ENCODER_FILE] = bridge.encoder.state_dict()
    if bridge.vision is not None and not bridge.config.freeze_vlm_vision:
        states[VISION_FILE] = bridge.vision.state_dict()
    return states


def _language_state(model: nn.Module) -> dict[str, Tensor]:
    """Collect a language model's weights, tied ones under one of their names."""
    if any(isinstance(layer, Int8Linear) for layer in model.modules()):
        raise ValueError(
            "An 8-bit language model cannot be saved: load the bridge without dtype=torch.int8."
        )
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def write_bridge(
    bridge: BridgeNetwork,
    folder: Path,
    weights: Mapping[str, dict[str, Tensor]],
    dtype: torch.dtype,
) -> str:
    """Write the configuration and weights (see `collect_states`); return their revision."""
    from safetensors.torch import save_file

    config = bridge.config
    with replace_files(folder, last=CONFIG_FILE) as temporary:
        if config.use_lora:
            adapter = make_peft_config(bridge.adapter)
            adapter.inference_mode = True
            adapter.save_pretrained(str(temporary / ADAPTER_FOLDER))
            name_adapter_base(temporary, config)
        for file, state in weights.items():
            save_file(to_storage_dtype(state, dtype), temporary / file, {"format": "pt"})
        replace(config, earthvlm_version=__version__).write(temporary)
    for part in set(BRIDGE_FILES) - {CONFIG_FILE, *list_parts(config)}:
        (folder / part).unlink(missing_ok=True)  # of another bridge that was saved here before
    return bridge_revision(folder)


def name_adapter_base(folder: Path, config: BridgeConfig) -> None:
    """Write into a saved adapter which language model it adapts, and its commit, for PEFT."""
    path = folder / ADAPTER_CONFIG_FILE
    model = find_language_model(config)
    named = {"base_model_name_or_path": model.repository or model.id, "revision": model.commit}
    path.write_text(
        json.dumps(json.loads(path.read_text("utf-8")) | named, indent=2) + "\n", "utf-8"
    )


def find_bridge(source: str | Path, revision: str | None, **options: Any) -> tuple[Path, str]:
    """Find a bridge's folder, downloaded where it is on the Hub, and its commit.

    options: of `fetch`, which also says what is raised.
    """
    if source != BUNDLED:
        check_source(source)
        # The last names what is only an adapter, so that the error can say so.
        files_of_bridge = (*BRIDGE_FILES, PEFT_CONFIG_FILE)
        snapshot = fetch(source, files_of_bridge, revision, **options)
        return snapshot.folder, snapshot.revision
    folder = Path(str(files("earthvlm") / "bundled" / "bridge"))
    if not folder.is_dir():
        raise FileNotFoundError(
            "This installation has no bundled bridge: give the folder of a saved bridge."
        )
    return folder, LOCAL_REVISION


def read_bridge(
    make_bridge: Callable[
        [
            BridgeConfig,
            str | torch.device | None,
            torch.dtype | None,
            bool,
            AdapterConfig | None,
        ],
        Bridge,
    ],
    folder: Path,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    trainable: bool,
) -> Bridge:
    """Build the bridge that a folder describes, and read its weights.

    Args:
        make_bridge: builds a bridge from a configuration; see `BridgeNetwork.from_config`.
        folder: of a saved bridge.
        device: see `OlmoEarthVLMBridge.from_pretrained`, as for the arguments after it.
        dtype: of the language model.
        trainable: keep the adapter separate instead of merging it into the language model.

    Raises:
        FileNotFoundError: names the file that is missing.
        ValueError: names the file or tensor that does not fit.
    """
    config, adapter = read_configs(folder)
    # Trained weights are quantized after they are read.
    in_int8 = dtype == torch.int8 and not config.use_lora
    bridge = make_bridge(config, device, None if in_int8 else dtype, trainable, adapter)
    if bridge.config.vlm_revision != config.vlm_revision:
        raise ValueError(
            f"{folder} was trained on {config.vlm_model_id} at revision {config.vlm_revision}, and "
            f"the one found here is revision {bridge.config.vlm_revision}."
        )
    bridge.config = config
    if config.use_lora and not trainable:
        bridge.merged_adapter = adapter_shapes(bridge.language, bridge.adapter)
    _load_weights(bridge, folder)
    if in_int8:
        quantize_all(bridge.language.model)
    bridge.revision = bridge_revision(folder)
    return bridge


def _load_weights(bridge: BridgeNetwork, folder: Path) -> None:
    read = {
        file: read_tensors(folder / file, expected) for file, expected in _states(bridge).items()
    }
    for name, part in (("fusion.", bridge.fusion), ("head.", bridge.head)):
        state = read[FUSION_FILE].items()
        part.load_state_dict(
            {key.removeprefix(name): t for key, t in state if key.startswith(name)}
        )
    if bridge.segmentation_head is not None:
        bridge.segmentation_head.load_state_dict(read[SEGMENTATION_FILE])
    if ENCODER_FILE in read:
        bridge.encoder.load_state_dict(read[ENCODER_FILE])
    if bridge.vision is not None and VISION_FILE in read:
        bridge.vision.load_state_dict(read[VISION_FILE])
    if LANGUAGE_FILE in read:
        # Tied weights are stored under one of their names.
        bridge.language.model.load_state_dict(read[LANGUAGE_FILE], strict=False)
    if bridge.merged_adapter is not None:
        bridge.merged_adapter = read[ADAPTER_FILE]
        merge_adapter(bridge.language, bridge.merged_adapter, bridge.adapter)
    elif ADAPTER_FILE in read:
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(bridge.language_model, read[ADAPTER_FILE])
