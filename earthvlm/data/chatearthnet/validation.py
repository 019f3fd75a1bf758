"""Read every tile of a ChatEarthNet folder once, and record which cannot be used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from functools import partial
from pathlib import Path

from earthvlm.data.chatearthnet.dataset import (
    CAPTION_FILE,
    CAPTION_SETS,
    SPLITS,
    check_root,
    find_triplet_fault,
    read_captions,
)
from earthvlm.data.validation import Report
from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS

# Tiles by split, from the dataset's paper (doi:10.5194/essd-17-1245-2025); that of the other
# captions gives their sum only.
PUBLISHED = {("35", "train"): 98_092, ("35", "val"): 16_348, ("35", "test"): 49_048}
PUBLISHED_IN_ALL = {"35": 163_488, "4v": 10_000}


def check_chatearthnet(data_dir: str | Path, workers: int | None = None) -> Report:
    """Read all captioned tiles, and write `check.json`, which lists those that training skips.

    Raises FileNotFoundError where the folder or its captions are missing, ValueError where one is
    damaged.
    """
    root = Path(data_dir)
    check_root(root)
    report, named = Report(), dict[str, str]()
    splits: dict[str, dict[str, Set[str]]] = defaultdict(dict)
    for captions in CAPTION_SETS:
        for split in SPLITS:
            path = root / "json_files" / CAPTION_FILE.format(captions=captions, split=split)
            if path.is_file():
                file = read_captions(path)
                name = f"captions {captions}, {split}"
                report.counts[name] = len(file.captions)
                report.published[name] = PUBLISHED.get((captions, split), 0)
                report.faults += file.lines()
                splits[captions][split] = file.captions.keys()
                named |= {name: name for name in file.captions}
    for captions, names in splits.items():
        report.compare_splits(f"captions {captions}", names)
        if len(names) == len(SPLITS):
            found, published = sum(map(len, names.values())), PUBLISHED_IN_ALL[captions]
            report.totals.append(
                f"captions {captions}: {found:,} tiles, published are {published:,}"
            )
    if not named:
        raise FileNotFoundError(f"{root / 'json_files'} holds no captions of ChatEarthNet.")
    report.read_tiles(named, partial(find_triplet_fault, root), workers)
    report.uncaptioned = sorted(_tiles_on_disk(root) - set(named))
    report.write(root)
    return report


def _tiles_on_disk(root: Path) -> set[str]:
    return {path.name for folder in CHATEARTHNET_FOLDERS for path in (root / folder).rglob("*.png")}
