"""Weights in safetensors files: what they hold, read strictly, and whether memory will hold it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

INDEX_FILE = "model.safetensors.index.json"
GIGABYTE = 1e9


class TensorFolder:
    """The tensors in a folder's safetensors files, by name; each is read when asked for.

    Every file is opened first, so that one that was cut short is found before any is used.
    Raises FileNotFoundError where there is none or one of the index is missing, ValueError where
    one is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._path_of: dict[str, Path] = {}
        self._shape_of: dict[str, tuple[int, ...]] = {}
        for path in _shards(Path(folder)):
            try:
                with safe_open(path, "pt") as file:
                    for name in file.keys():  # noqa: SIM118, it is no dict
                        self._path_of[name] = path
                        self._shape_of[name] = tuple(file.get_slice(name).get_shape())
            except FileNotFoundError:
                raise FileNotFoundError(f"The weights lack {path}: fetch them again.") from None
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged or cut short: fetch it again.") from error

    def names(self) -> list[str]:
        """The tensors of all its files."""
        return list(self._path_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, known without reading it."""
        return self._shape_of[name]

    def read(self, name: str) -> Tensor:
        """A tensor from its file."""
        from safetensors import safe_open

        # Opened anew each time: a file that stays open keeps in memory all that was read from it.
        with safe_open(self._path_of[name], "pt") as file:
            return file.get_tensor(name)

    def bytes_in(self, dtype: torch.dtype, names: Iterable[str] | None = None) -> int:
        """How much memory these tensors take in a type; all of them where none are named."""
        names = self._path_of if names is None else names
        return sum(prod(self.shape(name)) for name in names) * dtype.itemsize


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{index} is damaged or cut short: fetch it again.") from error
        return [folder / name for name in sorted(names)]
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no weights in safetensors files.")
    return paths


def check_device(name: str | None) -> None:
    """Raise ValueError where a device's name is none, or this machine lacks it; None is any."""
    if name is None:
        return
    match = re.fullmatch(r"(cpu|mps|cuda)(?::([0-9]{1,3}))?", name)
    if match is None or (match[1] != "cuda" and match[2]):
        raise ValueError(f"--device must be cpu, cuda, cuda:N or mps; {name!r} was given.")
    if match[1] == "mps" and not torch.backends.mps.is_available():
        raise ValueError("This machine has no mps device: use --device cpu.")
    count = torch.cuda.device_count()
    if match[1] == "cuda" and int(match[2] or 0) >= count:
        raise ValueError(
            f"This machine has no device {name!r} ({count} GPUs are seen): use --device cpu."
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; GPUs before Ampere emulate it slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_memory(needed: int, device: torch.device, what: str) -> None:
    """Raise MemoryError, before anything is loaded, where `needed` bytes will not fit."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "cpu":
        import psutil

        free = psutil.virtual_memory().available
    else:
        return  # other devices do not tell
    if needed > free:
        raise MemoryError(
            f"{what} needs {needed / GIGABYTE:.1f} GB of memory on {device}, where "
            f"{free / GIGABYTE:.1f} GB are free."
        )


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read tensors that must have exactly these names and shapes, or raise ValueError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    for name in sorted(expected.keys() ^ state.keys()):
        lacks = "lacks" if name in expected else "has an unknown"
        raise ValueError(f"{path} {lacks} tensor {name}.")
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"{path} has {name} of shape {tuple(state[name].shape)}, expected is "
                f"{tuple(tensor.shape)}."
            )
    return state


def to_storage_dtype(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors as they are written: on the CPU, numbers with fractions in one type."""
    return {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
