"""Read safetensors files strictly, and check devices and free memory before loading."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

INDEX_FILE = "model.safetensors.index.json"
GIGABYTE = 1e9


class TensorFolder:
    """The tensors in a folder's safetensors files, by name; each is read on request.

    The constructor opens every file, so that a truncated one is found before any is used. Raises
    FileNotFoundError where there is no file or one of the index is missing, ValueError where one is
    damaged.
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
                raise FileNotFoundError(f"The weights lack {path}: download them again.") from None
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged or truncated: download it again.") from error

    def names(self) -> list[str]:
        """List the names of all tensors."""
        return list(self._path_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading the tensor."""
        return self._shape_of[name]

    def read(self, name: str) -> Tensor:
        """Read a tensor from its file."""
        from safetensors import safe_open

        # Opened each time: an open file keeps all that was read from it in memory.
        with safe_open(self._path_of[name], "pt") as file:
            return file.get_tensor(name)

    def bytes_in(self, dtype: torch.dtype, names: Iterable[str] | None = None) -> int:
        """Return the memory that tensors take in a type, in bytes; `names` None counts all."""
        names = self._path_of if names is None else names
        return sum(prod(self.shape(name)) for name in names) * dtype.itemsize


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{index} is damaged or truncated: download it again.") from error
        return [folder / name for name in sorted(names)]
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no weights in safetensors files.")
    return paths


def check_device(name: str | None) -> None:
    """Raise ValueError for an invalid device name or one that this machine lacks; None passes."""
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
    """Whether the hardware supports bfloat16; GPUs before Ampere emulate it slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # as on Macs
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether this is a CPU that multiplies matrices faster in bfloat16 than in float32.

    Processors of Intel do where they have AMX. Without it their instruction for bfloat16 does half
    as much in the same time as AMD's: a Xeon embeds 1.3 times as many scenes a second in float32.
    """
    if device.type != "cpu":
        return False
    # Older versions of torch do not tell.
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    is_intel = has.get("cpu_name", "").startswith("Intel")
    return has.get("amx_bf16", False) or (has.get("avx512_bf16", False) and not is_intel)


def check_memory(needed: int, device: torch.device, what: str) -> None:
    """Raise MemoryError, before anything is loaded, where `needed` bytes will not fit."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "cpu":
        import psutil

        free = psutil.virtual_memory().available
    else:
        return  # other devices do not report it
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
    """Convert tensors for writing: on the CPU, floating-point ones in one type."""
    return {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
