"""A data source with its weight, as `--data_dir` takes it; parsed without opening anything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from earthvlm.storage.hub import HUB_ID


@dataclass(frozen=True)
class WeightedSource:
    """A source and its share of the training samples, relative to others; None draws all alike."""

    name: str
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> WeightedSource:
        """Parse "PATH" or "PATH=WEIGHT". Raises ValueError for a weight that is not above 0."""
        name, equals, given = text.rpartition("=")
        if not equals or Path(text).exists():
            return cls(text)
        try:
            weight = float(given)
        except ValueError:
            return cls(text)
        if not (name and 0 < weight < math.inf):
            raise ValueError(f"--data_dir {text} has the weight {given}, which is not above 0.")
        return cls(name, weight)

    @property
    def is_on_hub(self) -> bool:
        """Whether the name is that of a dataset on the Hub, not of a file or folder."""
        return bool(HUB_ID.fullmatch(self.name.partition("@")[0])) and not Path(self.name).exists()
