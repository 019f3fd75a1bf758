"""What `earthvlm validate-data` reports of a dataset, and the record that training reads."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.labels import read_entries
from earthvlm.data.tile_dataset import list_entries, name_first
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.storage.files import write_atomically

# The tiles that cannot be used, with reasons, in the dataset's folder.
CHECK_FILE = "check.json"
Named = TypeVar("Named")


@dataclass
class Report:
    """The result of a validation.

    counts: tiles with texts by split. published: how many there should be, where that is known.
    totals: further sentences on counts. unusable: reasons by tile. uncaptioned: tiles on disk that
    no entry names. faults: a sentence for each kind of entry that is left out, and for tiles that
    are in two splits.
    """

    counts: dict[str, int] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    totals: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    uncaptioned: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report, one sentence a line."""
        lines = []
        for split, count in self.counts.items():
            published = self.published.get(split)
            expected = f", published are {published:,}" if published else ""
            lines.append(f"{split}: {describe_count(count, 'tile')}{expected}")
        lines += self.totals
        kinds: dict[str, list[str]] = defaultdict(list)
        for name, reason in self.unusable.items():
            kinds[reason.partition(":")[0]].append(name)
        named = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
        if self.uncaptioned:
            named.append(("on disk without a caption", self.uncaptioned))
        lines += [
            f"{kind}: {describe_count(len(names), 'tile')}: {name_first(names)}"
            for kind, names in named
        ]
        lines += self.faults
        if not self.unusable:
            lines.append("every tile with a caption can be used")
        return lines

    def compare_splits(self, origin: str, splits: Mapping[str, Set[str]]) -> None:
        """Note the tiles that are in two splits."""
        for one, other in combinations(splits, 2):
            if both := sorted(splits[one] & splits[other]):
                reason = f"in {one} and in {other}"
                self.faults.append(list_entries(origin, reason, both, "tile"))

    def read_tiles(
        self,
        tiles: Mapping[str, Named],
        find_fault: Callable[[Named], str | None],
        workers: int | None,
    ) -> None:
        """Find the unusable ones of tiles, in threads, because decoding releases the interpreter.

        workers: the number of threads; None takes one for each core.
        """
        with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
            found = tqdm(threads.map(find_fault, tiles.values()), total=len(tiles), unit="tile")
            for name, fault in zip(tiles, found, strict=True):
                if fault:
                    self.unusable[name] = fault

    def write(self, root: Path) -> None:
        """Write `check.json`, which lists the tiles that training skips."""
        with write_atomically(root / CHECK_FILE) as path:
            path.write_text(json.dumps({"unusable": self.unusable}, indent=1) + "\n", "utf-8")


def leave_out_unusable(
    tiles: Sequence[Tile], root: Path, source: str
) -> tuple[list[Tile], list[str]]:
    """Return the tiles but those that `check.json` lists, and a sentence where there are such.

    Raises ValueError for a damaged `check.json`.
    """
    unusable = read_entries(root / CHECK_FILE).get("unusable", {})
    names = [tile.name for tile in tiles if tile.name in unusable]
    reason = f"of {source} that cannot be used"
    left_out = [list_entries(CHECK_FILE, reason, names, "tile")] if names else []
    return [tile for tile in tiles if tile.name not in unusable], left_out
