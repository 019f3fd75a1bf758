"""Put a trained bridge into earthvlm: its weights in bfloat16, its log, its curve and its card.

    python hub/bundle_bridge.py --run RUN --results results.json

RUN is what train_accelerate.py wrote; results.json is what `earthvlm evaluate --output` wrote for
the bundled bridge, so the first call of two goes without it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from earthvlm.bridge_config import CURVE_FILE, LOG_FILE
from earthvlm.hub import BUNDLED

NOTES = Path(__file__).with_name("bundled_bridge.md")
DEFAULT_OUTPUT = "earthvlm/bundled/bridge"
# Not the samples' pictures: the tiles are not this project's to pass on.
KEPT_FILES = (LOG_FILE, CURVE_FILE)


def bundle_bridge(run: Path, output: Path) -> None:
    """Write the run's bridge to `output`, for use rather than for further training."""
    import torch

    from earthvlm.bridge import OlmoEarthVLMBridge

    bridge = OlmoEarthVLMBridge.from_pretrained(run, device="cpu", trainable=True)
    bridge.save_pretrained(output, dtype=torch.bfloat16)
    for name in KEPT_FILES:
        shutil.copyfile(run / name, output / name)


def write_card(output: Path, results: Path | None) -> None:
    """Write README.md, with the figures where they were measured."""
    from earthvlm.card import write_bridge_card

    measured = json.loads(results.read_text()) if results else None
    write_bridge_card(output, BUNDLED, measured, NOTES.read_text("utf-8"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after one sentence on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a training run; without it only the card is new")
    parser.add_argument("--results", type=Path, help="figures of the bundled bridge")
    parser.add_argument("--output", type=Path, default=Path(DEFAULT_OUTPUT))
    options = parser.parse_args(arguments)
    try:
        if options.run is not None:
            bundle_bridge(options.run, options.output)
        write_card(options.output, options.results)
    except (FileNotFoundError, ValueError) as error:
        print(f"bundle_bridge.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
