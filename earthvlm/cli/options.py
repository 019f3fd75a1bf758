"""Arguments that commands share, the values they accept, and what they open."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthvlm.cli.output import print_message
from earthvlm.storage.files import suggest_folder
from earthvlm.storage.hub import BUNDLED, HUB_ID

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.scenes.scene import Scene

GEOTIFF = (".tif", ".tiff")
BOA_OFFSET_CHOICES = {"auto": None, "yes": True, "no": False}


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from low to high, both included."""
    accepted = f"of {low} or more" if high is None else f"from {low} to {high}"

    def parse(text: str) -> int:
        # Eighteen digits fit in 64 bits, in which models count.
        number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None
        if number is None or number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {accepted}")
        return number

    return parse


def temperature(text: str) -> float:
    """Parse a sampling temperature: 0 or more, and finite."""
    if not 0 <= _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return _number(text)


def probability(text: str) -> float:
    """Parse a share of the probability: above 0, at most 1."""
    if not 0 < _number(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return _number(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # lies in no range


def device_name(text: str) -> str:
    """Parse the name of a device, whether or not this machine has it."""
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of cpu, cuda, cuda:N and mps")
    return text


def band_names(text: str) -> tuple[str, ...]:
    """Parse names of bands, separated by commas."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of bands such as B04,B03,B02")
    return names


def add_scene_options(parser: argparse.ArgumentParser) -> None:
    """Add what `open_scene` needs."""
    parser.add_argument(
        "--bands",
        type=band_names,
        metavar="B02,B03,...",
        help="the names of a file's bands in their order, in place of what it says; mask, SCL and "
        "- (left out) stand for bands that are none",
    )
    parser.add_argument(
        "--boa_offset",
        choices=BOA_OFFSET_CHOICES,
        default="auto",
        help=(
            "whether a file's values carry the +1000 of Sentinel-2 products from 2022-01-25 on "
            "(default: auto, told from the file)"
        ),
    )


def add_part_options(parser: argparse.ArgumentParser) -> None:
    """Add what `open_scene` needs for a part of an image."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--bbox",
        nargs=4,
        type=float,
        metavar=("WEST", "SOUTH", "EAST", "NORTH"),
        help="read this part alone, in degrees; WEST above EAST crosses the date line",
    )
    group.add_argument(
        "--window",
        nargs=4,
        type=whole_number(0),
        metavar=("COLUMN", "ROW", "WIDTH", "HEIGHT"),
        help="read this part alone, in pixels from the top left",
    )


def add_bridge_options(parser: argparse.ArgumentParser) -> None:
    """Add what `load_bridge` needs."""
    parser.add_argument(
        "--model_path",
        default=BUNDLED,
        metavar="BRIDGE",
        help="a saved bridge's folder or Hub repository (default: the bundled one)",
    )
    parser.add_argument(
        "--device",
        type=device_name,
        help="where to compute: cpu, cuda, cuda:1 or mps (default: a GPU where there is one)",
    )


def add_visibility_options(parser: argparse.ArgumentParser) -> None:
    """Add `--private` and `--public`, which set `private` to True or False, else to None."""
    group = parser.add_mutually_exclusive_group()
    for name, private in (("private", True), ("public", False)):
        group.add_argument(
            f"--{name}",
            dest="private",
            action="store_const",
            const=private,
            help=f"require a {name} repository, which is made where there is none "
            "(default: an existing repository keeps its visibility)",
        )


def open_scene(
    path: str,
    arguments: argparse.Namespace,
    *,
    data_dir: Path | None = None,
    whole: bool = False,
) -> Scene:
    """Open a scene's file or address, or the image of that name in a ChatEarthNet data root.

    arguments: what `add_scene_options` and `add_part_options` parsed. whole: there are no options
    of a part. Raises ValueError, FileNotFoundError or ConnectionError as `Scene.open` does.
    """
    from earthvlm.scenes.scene import Scene

    options: dict[str, Any] = {
        "boa_offset": BOA_OFFSET_CHOICES[arguments.boa_offset],
        "bands": arguments.bands,
    }
    if not whole:
        options |= {"bbox": arguments.bbox, "window": arguments.window}
    if data_dir is None:
        return Scene.open(path, **options)
    return Scene.open(data_dir, path, **options)


def check_output_path(
    output: Path, option: str, suffixes: Sequence[str] = GEOTIFF, inputs: Sequence[str] = ()
) -> None:
    """Raise ValueError or FileNotFoundError where an option names a file that cannot be written.

    Says that a file which exists will be replaced. suffixes: one of which the file must have.
    inputs: files that the command reads, none of which is overwritten.
    """
    if output.suffix.lower() not in suffixes:
        raise ValueError(f"{option} ends in {' or '.join(suffixes)}, not '{output.name}'.")
    if not output.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{output.parent}' to save {output.name} in.")
    for path in inputs:
        if output.exists() and Path(path).exists() and output.samefile(path):
            raise ValueError(f"{option} would overwrite '{path}', which is to be read.")
    announce_replacement(output)


def announce_replacement(output: Path) -> None:
    """Say that a file will be replaced, where it exists."""
    if output.exists():
        print_message(f"{output} exists and will be replaced.")


def check_model_path(model_path: str, or_untrained: bool = False) -> None:
    """Raise FileNotFoundError where this names no bridge, without loading anything.

    or_untrained: accept the path of a folder that does not exist; see `load_bridge`.
    """
    named = model_path == BUNDLED or Path(model_path).is_dir() or HUB_ID.fullmatch(model_path)
    if not named and not (or_untrained and _is_path(model_path)):
        near = suggest_folder(model_path)
        raise FileNotFoundError(
            f"There is no bridge at {model_path!r}{near}"
            if near
            else f"There is no bridge at {model_path!r}: give 'bundled', a saved bridge's folder, "
            "or a Hub repository as in owner/name."
        )


def _is_path(model_path: str) -> bool:
    return model_path.startswith((".", "/", "~")) or Path(model_path).is_absolute()


def quiet_transformers() -> None:
    """Keep the library's warnings and progress bars off stderr."""
    from transformers.utils import logging

    from earthvlm.models.loading import hide_progress_bars

    logging.set_verbosity_error()
    hide_progress_bars()


def load_bridge(
    model_path: str, device: str | None, or_untrained: bool = False
) -> OlmoEarthVLMBridge:
    """Load a saved bridge.

    or_untrained: where the folder holds none or does not exist, build one of the default models,
        and say that it is untrained.
    Raises ValueError or FileNotFoundError where a part is missing or does not fit, and where this
    machine lacks the device; ConnectionError where the Hub is needed and cannot be reached.
    """
    from earthvlm.storage.tensors import check_device

    check_device(device)
    quiet_transformers()

    from earthvlm.bridge.config import BRIDGE_FILES
    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.models.adapter_config import PEFT_CONFIG_FILE

    local = Path(model_path).is_dir() or _is_path(model_path)
    # A folder with weights and no configuration is a damaged bridge, which loading names.
    parts = (*BRIDGE_FILES, PEFT_CONFIG_FILE)
    empty = local and not any(Path(model_path, name).exists() for name in parts)
    if not (or_untrained and empty):
        return OlmoEarthVLMBridge.from_pretrained(model_path, device=device)
    print_message(
        f"{model_path} holds no bridge, so one of the default models answers: it is untrained, and "
        "its answers have nothing to do with the scene."
    )
    try:
        return OlmoEarthVLMBridge(device=device, trainable=False).eval()
    except ConnectionError as error:
        raise ConnectionError(
            f"{model_path} holds no bridge, and the default models cannot be fetched to build an "
            f"untrained one: {error}"
        ) from error
