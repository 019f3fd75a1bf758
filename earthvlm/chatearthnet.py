"""ChatEarthNet on disk: Sentinel-2 tiles with captions (Yuan et al., 2024, CC-BY-4.0).

Three folders of 8-bit PNGs hold nine bands of each tile, `json_files` the captions. A `facts.json`
beside them, which ChatEarthNet itself does not have, adds land cover for each tile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from earthvlm.facts import SceneFacts
from earthvlm.pictures import locate_chatearthnet
from earthvlm.scene import Scene

CAPTION_FILE = "ChatEarthNet_caps_{captions}_{split}.json"
CAPTION_SETS = ("35", "4v")
SPLITS = ("train", "val", "test")
# What the Hub knows the dataset by.
HUB_ID = "JessicaYuan/ChatEarthNet"
# Written by `earthvlm check`: the tiles that cannot be used, and why.
CHECK_FILE = "check.json"
# Bytes of tiles that each process keeps once it has read them: some thousands of 64 x 64 pixels,
# and few of ChatEarthNet's own, which come in another order each epoch anyway.
MEMORY = 1 << 30


@dataclass(frozen=True)
class Tile:
    """One image of the dataset with what is known of it."""

    name: str
    captions: tuple[str, ...]
    facts: SceneFacts | None


class ChatEarthNet(Dataset):
    """The tiles of one split, in the order of their caption file.

    captions: "35" for those by ChatGPT-3.5, "4v" for those by GPT-4V.
    memory: bytes of the tiles read last that are kept.
    Tiles that `earthvlm check` found unusable are left out; `skipped` says how many.

    Raises FileNotFoundError where the caption file is missing, ValueError where it is damaged.
    """

    def __init__(
        self, data_dir: str | Path, split: str, captions: str = "35", memory: int = MEMORY
    ) -> None:
        self.root = Path(data_dir)
        self._kept: dict[str, Scene] = {}  # the longest unread first
        self._free = memory
        path = self.root / "json_files" / CAPTION_FILE.format(captions=captions, split=split)
        if not path.is_file():
            missing = path if self.root.is_dir() else f"The folder {self.root}"
            raise FileNotFoundError(
                f"{missing} is missing: --data_dir must hold ChatEarthNet's json_files and images, "
                f"which `earthvlm download chatearthnet --data_dir {self.root}` fetches."
            )
        facts, unusable = self._read("facts.json"), self._read(CHECK_FILE).get("unusable", {})
        tiles = [self._make_tile(*entry, facts) for entry in read_captions(path)]
        self.tiles = [tile for tile in tiles if tile.name not in unusable]
        self.skipped = len(tiles) - len(self.tiles)

    def __len__(self) -> int:
        return len(self.tiles)

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.tiles)

    def __getitem__(self, index: int) -> tuple[Scene, Tile]:
        tile = self.tiles[index]
        return self.read(tile), tile

    def read(self, tile: Tile) -> Scene:
        """Open a tile's image."""
        scene = self._kept.pop(tile.name, None)
        if scene is None:
            scene = Scene.open(self.root, tile.name)
            self._free -= scene.reflectance.nbytes
        self._kept[tile.name] = scene
        while self._free < 0:
            oldest = self._kept.pop(next(iter(self._kept)))
            self._free += oldest.reflectance.nbytes
        return scene

    @property
    def has_facts(self) -> bool:
        """Whether the land cover of every tile is known, not its caption alone."""
        return all(tile.facts is not None for tile in self.tiles)

    @property
    def hub_id(self) -> str | None:
        """The Hub's dataset that these tiles are of, as their names tell; None for others."""
        named = all(locate_chatearthnet(Path(tile.name).stem) for tile in self.tiles)
        return HUB_ID if self.tiles and named else None

    def _read(self, name: str) -> dict[str, dict]:
        path = self.root / name
        try:
            return json.loads(path.read_text()) if path.is_file() else {}
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error

    @staticmethod
    def _make_tile(name: str, captions: tuple[str, ...], facts: dict[str, dict]) -> Tile:
        known = facts.get(name)
        return Tile(name, captions, SceneFacts.from_entry(known) if known else None)


def read_captions(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Each image's name with its captions. Raises ValueError where the file is damaged."""
    try:
        return [
            (
                entry.get("image") or entry["image_id"],
                (entry["caption"],)
                if isinstance(entry["caption"], str)
                else tuple(entry["caption"]),
            )
            for entry in json.loads(path.read_text())
        ]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no caption file of ChatEarthNet: {error!r}.") from error
