"""Read every tile of a ChatEarthNet folder once, and record which cannot be used."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path

from tqdm import tqdm

from earthvlm.data.chatearthnet import (
    CAPTION_FILE,
    CAPTION_SETS,
    CHECK_FILE,
    SPLITS,
    list_entries,
    read_captions,
)
from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS
from earthvlm.scenes.reflectance import BlankSceneError
from earthvlm.scenes.scene import Scene
from earthvlm.storage.files import write_atomically

# Tiles by split, from the dataset's paper (doi:10.5194/essd-17-1245-2025); that of the other
# captions gives their sum only.
PUBLISHED = {("35", "train"): 98_092, ("35", "val"): 16_348, ("35", "test"): 49_048}
PUBLISHED_IN_ALL = {"35": 163_488, "4v": 10_000}


@dataclass
class Report:
    """The result of a validation.

    counts: captioned tiles by caption set and split. unusable: reasons by tile. uncaptioned: tiles
    on disk that no caption file names. caption_faults: a sentence for each kind of fault in each
    caption file, and for tiles that are in two splits.
    """

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    uncaptioned: list[str] = field(default_factory=list)
    caption_faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report, one sentence a line."""
        lines = []
        for (captions, split), count in self.counts.items():
            published = PUBLISHED.get((captions, split))
            expected = f", published are {published:,}" if published else ""
            lines.append(f"captions {captions}, {split}: {count:,} tiles{expected}")
        for captions, published in PUBLISHED_IN_ALL.items():
            found = [count for (kind, _), count in self.counts.items() if kind == captions]
            if len(found) == len(SPLITS):
                lines.append(
                    f"captions {captions}: {sum(found):,} tiles, published are {published:,}"
                )
        kinds = Counter(reason.partition(":")[0] for reason in self.unusable.values())
        lines += [f"{kind}: {count:,} tiles" for kind, count in kinds.most_common()]
        if self.uncaptioned:
            lines.append(f"on disk without a caption: {len(self.uncaptioned):,} tiles")
        lines += self.caption_faults
        if not self.unusable:
            lines.append("every tile with a caption can be used")
        return lines


def check_chatearthnet(data_dir: str | Path, workers: int | None = None) -> Report:
    """Read all captioned tiles, and write `check.json`, which lists those that training skips.

    Raises FileNotFoundError where there are no caption files, ValueError where one is damaged.
    """
    root = Path(data_dir)
    report, named = Report(), dict[str, None]()
    splits: dict[str, dict[str, Set[str]]] = defaultdict(dict)
    for captions in CAPTION_SETS:
        for split in SPLITS:
            path = root / "json_files" / CAPTION_FILE.format(captions=captions, split=split)
            if path.is_file():
                file = read_captions(path)
                report.counts[captions, split] = len(file.captions)
                report.caption_faults += file.lines()
                splits[captions][split] = file.captions.keys()
                named |= dict.fromkeys(file.captions)
    for captions, names in splits.items():
        for one, other in combinations(names, 2):
            if both := sorted(names[one] & names[other]):
                reason = f"tiles are in {one} and in {other}"
                report.caption_faults.append(list_entries(f"captions {captions}", reason, both))
    if not named:
        raise FileNotFoundError(f"{root / 'json_files'} holds no captions of ChatEarthNet.")
    # Threads are enough, because decoding pictures releases the interpreter.
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
        found = threads.map(partial(find_fault, root), named)
        for name, fault in zip(named, tqdm(found, total=len(named), unit="tile"), strict=True):
            if fault:
                report.unusable[name] = fault
    report.uncaptioned = sorted(_tiles_on_disk(root) - set(named))
    with write_atomically(root / CHECK_FILE) as path:
        path.write_text(json.dumps({"unusable": report.unusable}, indent=1) + "\n", "utf-8")
    return report


def find_fault(root: Path, name: str) -> str | None:
    """Return why a tile cannot be used, or None."""
    try:
        Scene.open(root, name)
    except FileNotFoundError:
        present = [f for f in CHATEARTHNET_FOLDERS if _is_there(root / f, name)]
        lacking = [f for f in CHATEARTHNET_FOLDERS if f not in present]
        return (
            f"missing partner: none in {', '.join(lacking)}" if present else "missing: no picture"
        )
    except BlankSceneError as error:
        return f"blank: {error}"
    except (ValueError, OSError) as error:
        return f"unreadable: {error}"
    return None


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (folder / "s2_images" / name).is_file()


def _tiles_on_disk(root: Path) -> set[str]:
    return {path.name for folder in CHATEARTHNET_FOLDERS for path in (root / folder).rglob("*.png")}
