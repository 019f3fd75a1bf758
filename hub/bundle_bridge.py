"""Bundle a trained bridge with earthvlm: bfloat16 weights, training log, loss curve and card.

    python hub/bundle_bridge.py --run RUN --results results.json

RUN is the output folder of train_accelerate.py. results.json is the output of `earthvlm evaluate
--output` for the bundled bridge: call this once with --run, evaluate, and call it again with
--results. The card shows the bridge's answers on a few of the bundled scenes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from earthvlm.bridge.config import CURVE_FILE, LOG_FILE
from earthvlm.bridge.hub.model_card import as_cell, write_bridge_card
from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.scenes.analysis.spectral_indices import measure
from earthvlm.search.index import SceneIndex
from earthvlm.serving.measurements import summarize_measurements
from earthvlm.storage.hub import BUNDLED

NOTES = Path(__file__).with_name("bundled_bridge.md")
DEFAULT_OUTPUT = "earthvlm/bundled/bridge"
# Without the samples' pictures: this project has no right to publish the tiles.
KEPT_FILES = (LOG_FILE, CURVE_FILE)
# Bundled scenes for the card: a lake, hills of mixed cover, and a lake as dark as its forest.
SHOWN_SCENES = ("beetzsee_r2_c09", "portugal_2017-12-21_56_35", "finland_2017-09-24_69_24")
SHOWN_QUESTIONS = (DEFAULT_PROMPT, "Is there water?")
PICTURES_FOLDER = "pictures"


def bundle_bridge(run: Path, output: Path) -> None:
    """Write the run's bridge to `output` in bfloat16, which is for inference."""
    import torch

    from earthvlm.bridge.model import OlmoEarthVLMBridge

    bridge = OlmoEarthVLMBridge.from_pretrained(run, device="cpu", trainable=True)
    bridge.save_pretrained(output, dtype=torch.bfloat16)
    for name in KEPT_FILES:
        shutil.copyfile(run / name, output / name)


def write_card(output: Path, results: Path | None) -> None:
    """Write README.md, with the evaluation's figures if there are any, and its pictures."""
    figures = json.loads(results.read_text("utf-8")) if results else None
    write_bridge_card(output, BUNDLED, figures, NOTES.read_text("utf-8"), show_scenes(output))


def show_scenes(output: Path) -> str:
    """Ask the bridge in `output` about SHOWN_SCENES and write their pictures next to it.

    Returns Markdown: its answers, the spectral indices and each scene's author.
    """
    from earthvlm.bridge.model import OlmoEarthVLMBridge

    bridge = OlmoEarthVLMBridge.from_pretrained(output, device="cpu")
    index = SceneIndex.from_pretrained(BUNDLED)
    (output / PICTURES_FOLDER).mkdir(exist_ok=True)
    lines = [
        "## Its answers on bundled scenes",
        "",
        "The last column comes from spectral indices alone.",
        "",
        f"| scene | {' | '.join(SHOWN_QUESTIONS)} | measured |",
        f"|---|{'---|' * len(SHOWN_QUESTIONS)}---|",
    ]
    sources = []
    for shown in map(index.get, SHOWN_SCENES):
        scene = shown.open_scene()
        picture = f"{PICTURES_FOLDER}/{shown.image_id}.png"
        scene.composite().save(output / picture)
        cells = [str(bridge.generate(scene, question)) for question in SHOWN_QUESTIONS]
        cells.append(summarize_measurements(measure(scene)))
        lines.append(f"| ![{shown.image_id}]({picture}) | {' | '.join(map(as_cell, cells))} |")
        sources.append(f"- `{shown.image_id}`: {shown.source}")
    return "\n".join([*lines, "", *sources])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after one sentence on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run",
        type=Path,
        help="a training run's output folder; without it only the card is written",
    )
    parser.add_argument(
        "--results", type=Path, help="output of `earthvlm evaluate` for the bundled bridge"
    )
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
