"""Loading OlmoEarth's networks: from the Hub, from a folder, or with random weights."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from earthvlm.storage.files import link_or_copy
from earthvlm.storage.hub import LOCAL_REVISION, fetch
from earthvlm.storage.tensors import check_memory

OLMOEARTH_FILES = ("config.json", "weights.pth")
MODALITY = "sentinel2_l2a"
PUBLISHER = "allenai"  # on the Hub
RANDOM_MODEL_ID = re.compile(r"random-(v1(?:\.\d)?)-(nano|tiny|small|base|large)")


def resolve_model_id(model_id: str) -> str:
    """Return the canonical model id: "OlmoEarth-v1-Nano" for `ModelID.OLMOEARTH_V1_NANO`.

    model_id: a `ModelID`, its value or its name in any case, or the Hub repository's id; folders
        and ids of networks with random weights are returned unchanged.
    Raises ValueError that lists the accepted ids.
    """
    from olmoearth_pretrain_minimal import ModelID

    given = str(model_id)
    if Path(given).is_dir() or RANDOM_MODEL_ID.fullmatch(given):
        return given
    name = given.lower().removeprefix(f"{PUBLISHER}/")
    for known in ModelID:
        if name in (known.value.lower(), known.name.lower()):
            return known.value
    raise ValueError(
        f"{given!r} is no OlmoEarth model: give one of {', '.join(ModelID)}, a folder with "
        "config.json and weights.pth, or random-v1.2-nano for random weights."
    )


def olmoearth_repository(model_id: str) -> str:
    """Return the Hub repository of a released model; raises as `resolve_model_id`."""
    return f"{PUBLISHER}/{resolve_model_id(model_id)}"


def load_network(model_id: str, revision: str | None) -> tuple[nn.Module, str]:
    """Load the encoder, without the other parts of pretraining, and its revision.

    model_id, revision: see `OlmoEarthEncoder`. Raises ValueError for an unknown id or damaged
    weights, FileNotFoundError for a folder that lacks a file.
    """
    from olmoearth_pretrain_minimal import OlmoEarthPretrain_v1

    random = RANDOM_MODEL_ID.fullmatch(model_id)
    if random:
        version, size = random.groups()
        model = OlmoEarthPretrain_v1(
            model_size=size, model_version=version, supported_modality_names=[MODALITY]
        )
        return model.model.encoder, LOCAL_REVISION
    source = model_id if Path(model_id).is_dir() else olmoearth_repository(model_id)
    snapshot = fetch(source, OLMOEARTH_FILES, revision)
    return _load_pretrained(snapshot.folder), snapshot.revision


def _load_pretrained(folder: Path) -> nn.Module:
    """Load the encoder of a published checkpoint with the package's own loader."""
    from olmoearth_pretrain_minimal import load_model_from_path

    for name in OLMOEARTH_FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} lacks {name}: it holds no OlmoEarth model.")
    weights = folder / OLMOEARTH_FILES[1]
    check_memory(2 * weights.stat().st_size, torch.device("cpu"), f"OlmoEarth in {folder}")
    try:
        with _with_inputs_recorded(folder) as complete:
            return load_model_from_path(complete).encoder
    except (RuntimeError, UnpicklingError, EOFError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{weights} is damaged or does not fit its config.json: {reason}"
        ) from error


@contextmanager
def _with_inputs_recorded(folder: Path) -> Iterator[Path]:
    """Yield a folder whose config.json records the encoder's inputs, which the loader requires.

    Where the published one does not record them, all modalities but Sentinel-2 count as not
    encoded, because nothing else is encoded here.
    """
    config = json.loads((folder / OLMOEARTH_FILES[0]).read_text("utf-8"))
    recorded = any(
        config.get(section, {}).get("masking_config", {}).get("strategy_config", {})
        for section in ("train_module", "data_loader")
    )
    if recorded:
        yield folder
        return
    supported = config["model"]["encoder_config"]["supported_modality_names"]
    others = [name for name in supported if name != MODALITY]
    config["data_loader"] = {
        "masking_config": {"strategy_config": {"only_decode_modalities": others}}
    }
    with tempfile.TemporaryDirectory() as aside:
        Path(aside, OLMOEARTH_FILES[0]).write_text(json.dumps(config), "utf-8")
        link_or_copy(folder / OLMOEARTH_FILES[1], Path(aside, OLMOEARTH_FILES[1]))
        yield Path(aside)
