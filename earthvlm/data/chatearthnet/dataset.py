"""ChatEarthNet on disk: Sentinel-2 tiles with captions (Yuan et al., 2024, CC-BY-4.0).

Three folders of 8-bit PNGs hold nine bands of each tile, `json_files` the captions. A `labels.json`
next to them, which ChatEarthNet itself does not have, adds land cover for each tile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthvlm.data.captioned_scenes import Tile, is_unicode
from earthvlm.data.labels import FACTS_FILE, LABELS_FILE, SceneLabels, read_entries
from earthvlm.data.tile_dataset import MEMORY, TileDataset, describe_fault, list_entries
from earthvlm.data.validation import leave_out_unusable
from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS
from earthvlm.scenes.pictures.triplet_reader import locate_chatearthnet
from earthvlm.scenes.scene import Scene
from earthvlm.storage.files import suggest_folder

CAPTION_FILE = "ChatEarthNet_caps_{captions}_{split}.json"
CAPTION_SETS = ("35", "4v")
SPLITS = ("train", "val", "test")
# The dataset on the Hub.
HUB_ID = "JessicaYuan/ChatEarthNet"


@dataclass(frozen=True)
class CaptionFile:
    """The captions of one split.

    captions: texts by image, in the file's order. faults: unusable entries by reason.
    """

    path: Path
    captions: dict[str, tuple[str, ...]]
    faults: dict[str, list[str]]

    def lines(self) -> list[str]:
        """Return one sentence for each kind of fault, with the first entries."""
        return [list_entries(self.path.name, *fault) for fault in self.faults.items()]


class ChatEarthNet(TileDataset):
    """The tiles of one split, in the order of their caption file.

    captions: "35" for those by ChatGPT-3.5, "4v" for those by GPT-4V.
    memory: bytes of recently read tiles that are kept.
    Tiles that `earthvlm validate-data` found unusable are left out, and so are repeated ones and
    those without a caption; `left_out` has a sentence for each kind.

    Raises FileNotFoundError where the caption file is missing, ValueError where it is damaged.
    """

    def __init__(
        self, data_dir: str | Path, split: str, captions: str = "35", memory: int = MEMORY
    ) -> None:
        self.root = Path(data_dir)
        path = self.root / "json_files" / CAPTION_FILE.format(captions=captions, split=split)
        check_root(self.root)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: --data_dir must hold ChatEarthNet's json_files and images, "
                f"which `earthvlm download chatearthnet --data_dir {self.root}` fetches."
            )
        labels = read_entries(self.root / LABELS_FILE) or read_entries(self.root / FACTS_FILE)
        file = read_captions(path)
        tiles = [self._make_tile(*entry, labels) for entry in file.captions.items()]
        usable, unusable = leave_out_unusable(tiles, self.root, path.name)
        super().__init__(
            str(path),
            usable,
            lambda tile: Scene.open(self.root, tile.name),
            left_out=[*file.lines(), *unusable],
            hub_id=find_hub_id(usable),
            memory=memory,
        )

    def find_fault(self, tile: Tile) -> str | None:
        """Return why a tile's image cannot be used, or None."""
        return find_triplet_fault(self.root, tile.name)

    def _make_tile(self, name: str, captions: tuple[str, ...], labels: dict[str, Any]) -> Tile:
        known = labels.get(name)
        try:
            return Tile(name, captions, SceneLabels.from_entry(known) if known else None)
        except ValueError as error:
            raise ValueError(f"{self.root}: {name} has labels that {error}.") from error


def check_root(root: Path) -> None:
    """Raise FileNotFoundError where a data root is missing."""
    if not root.is_dir():
        near = suggest_folder(root, or_file=True)
        raise FileNotFoundError(
            f"The folder {root} is missing{near}"
            if near
            else f"The folder {root} is missing: check its path. For ChatEarthNet, "
            f"`earthvlm download chatearthnet --data_dir {root}` fetches it."
        )


def find_triplet_fault(root: Path, name: str) -> str | None:
    """Return why a tile cannot be used, or None."""
    fault = describe_fault(lambda: Scene.open(root, name))
    if fault is None or not fault.startswith("missing"):
        return fault
    present = [f for f in CHATEARTHNET_FOLDERS if _is_there(root / f, name)]
    lacking = [f for f in CHATEARTHNET_FOLDERS if f not in present]
    return f"missing partner: none in {', '.join(lacking)}" if present else "missing: no picture"


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (folder / "s2_images" / name).is_file()


def find_hub_id(tiles: Sequence[Tile]) -> str | None:
    """Return the Hub's name of ChatEarthNet where all tiles are named as its own, else None."""
    named = all(locate_chatearthnet(Path(tile.name).stem) for tile in tiles)
    return HUB_ID if tiles and named else None


def read_captions(path: Path) -> CaptionFile:
    """Read a caption file: a list of `{"image" or "image_id": name, "caption": text or texts}`.

    Entries without any text, and repeated images, are left out and listed in `faults`.
    Raises ValueError, naming the file and the entry (counted from 1), for any other form.
    """
    entries = _load_entries(path)
    captions: dict[str, tuple[str, ...]] = {}
    faults: dict[str, list[str]] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            name, texts = _read_entry(entry)
        except ValueError as error:
            raise ValueError(f"{path}: entry {number} {error}.") from None
        if not texts:
            faults.setdefault("without a caption", []).append(f"entry {number}, {name}")
        elif name in captions:
            faults.setdefault("with an image of an earlier one", []).append(
                f"entry {number}, {name}"
            )
        else:
            captions[name] = texts
    return CaptionFile(path, captions, faults)


def _load_entries(path: Path) -> list[object]:
    content = path.read_bytes()
    try:
        try:
            entries = json.loads(content)
        except UnicodeDecodeError:
            # Other bytes become lone surrogates, which `_read_entry` finds and names.
            entries = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if reason.startswith("Extra data"):
            reason += ", which is no longer part of the list (one object a line is another format)"
        raise ValueError(f"{path} is no caption file of ChatEarthNet: {reason}.") from error
    if not isinstance(entries, list):
        raise ValueError(
            f"{path} is no caption file of ChatEarthNet: it holds no list, but starts with entry "
            f"{next(iter(entries), '') if isinstance(entries, dict) else entries!r}."
        )
    return entries


def _read_entry(entry: object) -> tuple[str, tuple[str, ...]]:
    """Return an image's name and its non-blank captions. Raises ValueError for another form."""
    if not isinstance(entry, dict):
        raise ValueError('is no object with "image" and "caption"')
    name = entry.get("image") or entry.get("image_id")
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"names the image {str(name)[:80]!r}, which is no file name as NAME.png")
    given = entry.get("caption")
    texts = [] if given is None else given if isinstance(given, list) else [given]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError(f"({name}) has a caption that is neither text nor a list of texts")
    if not all(is_unicode(text) for text in (name, *filter(None, texts))):
        raise ValueError(f"({name!a}) has characters that are not in UTF-8")
    name = name if name.lower().endswith(".png") else f"{name}.png"
    return name, tuple(text for text in texts if text and text.strip())
