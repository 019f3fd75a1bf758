"""A cache on disk of a frozen encoder's tokens, which are the same in every epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from earthvlm.data.captioned_scenes import CaptionedScenes
from earthvlm.models.olmoearth import OlmoEarthEncoder
from earthvlm.scenes.scene import Scene
from earthvlm.storage.files import write_atomically

TOKENS_FILE = "tokens.npy"
DONE_FILE = "done.npy"


class FeatureCache:
    """Memory-mapped tokens of tiles of one size, float16 `[N, rows, columns, band sets, D_olmo]`.

    An interrupted `fill` resumes; the processes of one machine share the work and the file.
    folder: holds a cache for each encoder (weights, bands and patch size) and list of tiles.
    """

    def __init__(self, folder: Path, encoder: OlmoEarthEncoder, tiles: CaptionedScenes) -> None:
        self.encoder, self.tiles = encoder, tiles
        self.folder = folder / cache_key(encoder, [tile.name for tile in tiles.tiles])
        self.path = self.folder / TOKENS_FILE

    def fill(
        self,
        batch_size: int,
        wait: Callable[[], None],
        process: int = 0,
        processes: int = 1,
        show_progress: bool = False,
    ) -> None:
        """Encode this process's share of the missing tiles.

        wait: a barrier, which returns once all processes have called it.
        Raises ValueError, naming the tile, if its size differs from the first tile's.
        """
        from tqdm import tqdm

        if process == 0:
            self._create()
        wait()
        tokens = np.load(self.path, mmap_mode="r+")
        done = np.load(self.folder / DONE_FILE, mmap_mode="r+")
        missing = [i for i in range(process, len(self.tiles), processes) if not done[i]]
        for start in tqdm(
            range(0, len(missing), batch_size), "encoding tiles", disable=not show_progress
        ):
            batch = missing[start : start + batch_size]
            tokens[batch] = self._encode(batch, tokens.shape[1:])
            tokens.flush()  # before they are marked as done
            done[batch] = True
        wait()

    def _create(self) -> None:
        if (self.folder / DONE_FILE).is_file():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        shape = (len(self.tiles), *self._grids([0])[0], self.encoder.band_sets, self.encoder.dim)
        np.lib.format.open_memmap(self.path, "w+", np.float16, shape)
        # Written last and atomically: if it exists, the tokens' file is complete.
        with write_atomically(self.folder / DONE_FILE) as path, path.open("wb") as file:
            np.save(file, np.zeros(len(self.tiles), bool))

    def _grids(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        size = self.encoder.patch_size
        shapes = (self._read(i).reflectance.shape for i in indices)
        return [(-(-shape[0] // size), -(-shape[1] // size)) for shape in shapes]

    def _read(self, index: int) -> Scene:
        return self.tiles.read(self.tiles.tiles[index])

    @torch.inference_mode()
    def _encode(self, batch: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
        for index, grid in zip(batch, self._grids(batch), strict=True):
            if grid != shape[:2]:
                raise ValueError(
                    f"{self.tiles.tiles[index].name} has another size than the first tile: "
                    "--feature_cache_dir needs tiles of one size."
                )
        encoded = self.encoder([self.encoder.prepare(self._read(i)) for i in batch])
        return encoded.tokens.reshape(len(batch), *shape).half().cpu().numpy()


def read_tokens(path: Path, index: int) -> Tensor:
    """Read one tile's tokens, float16 `[rows, columns, band sets, D_olmo]`."""
    return torch.from_numpy(_open(path)[index].copy())


@lru_cache(maxsize=2)  # by path, because an open array would be copied to new workers
def _open(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def cache_key(encoder: OlmoEarthEncoder, names: Sequence[str]) -> str:
    """A hash of the encoder's weights, bands and patch size and of the tiles' names."""
    digest = hashlib.sha256(json.dumps([encoder.bands, encoder.patch_size, *names]).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
