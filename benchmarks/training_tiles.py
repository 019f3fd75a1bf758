"""Print the statistics of a dataset's training tiles, as a trained bridge's configuration holds.

python -m benchmarks.training_tiles DATA_DIR
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.data.tile_statistics import summarize_tiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path, help="in ChatEarthNet's layout")
    tiles = ChatEarthNet(parser.parse_args().data_dir, "train")
    print(json.dumps(asdict(summarize_tiles(tiles, len(tiles))), indent=2))


if __name__ == "__main__":
    main()
