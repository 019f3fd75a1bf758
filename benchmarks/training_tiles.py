"""Print statistics of a dataset's training tiles, for `earthvlm.scenes.distribution_shift`.

python -m benchmarks.training_tiles DATA_DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.scene import Scene

PERCENTILES = (0.5, 99.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path)
    data_dir = parser.parse_args().data_dir
    captions = data_dir / "json_files" / "ChatEarthNet_caps_35_train.json"
    names = [row.get("image") or row["image_id"] for row in json.loads(captions.read_text())]
    scenes = (Scene.open(data_dir, name) for name in names)
    means = np.array([scene.reflectance.mean(axis=(0, 1)) for scene in scenes])
    print(f"{len(means):,} tiles: mean reflectance x 10000, {PERCENTILES[0]} to {PERCENTILES[1]} %")
    for index, band in enumerate(BANDS):
        if not np.isnan(means[:, index]).any():
            low, high = np.percentile(means[:, index], PERCENTILES)
            print(f"  {band} {low:6.0f} {high:6.0f}")


if __name__ == "__main__":
    main()
