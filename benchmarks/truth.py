"""How often a bridge is right, mostly about scenes of places that its training never saw.

    python -m benchmarks.truth --data_dir DATA [--model_path BRIDGE] [--parts unseen,photos,...]

DATA holds `s2_practice` (ChatEarthNet's layout with labels) and `s2_world` (labelled patches; see
`earthvlm.data.labelled_patches`). Labels are masks that came with the patches, and what people saw:
`truth_places.json`, `truth_scenes.json`. Every figure has a 95 % interval and stands next to: the
context's text alone (queries zeroed), the image alone (context left out), another scene's answer,
no scene, and spectral indices alone. A figure of a yes/no question is a balanced accuracy: the
mean of the shares that are right among the scenes with and those without, 0.5 for one constant
answer. Snow is drawn on patches, because none has real snow.

Answers are kept in `results/truth.jsonl`, so a stopped benchmark continues.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.report import RESULTS
from benchmarks.truth_answers import CONDITIONS, Asker
from benchmarks.truth_consistency import score_consistency
from benchmarks.truth_conversations import score_conversations, score_judged
from benchmarks.truth_practice import score_practice, score_search
from benchmarks.truth_scenes import KnownScene, as_photos, draw_snow_on, read_unseen
from benchmarks.truth_scores import Row, score_bundled, score_unseen
from earthvlm import OlmoEarthVLMBridge


def print_rows(rows: Sequence[Row | None]) -> None:
    """Print a table of figures."""
    print(
        "| figure | bridge | 95 % interval | evidence only | image only | another scene "
        "| no scene | indices | answers |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in filter(None, rows):
        others = (row.evidence, row.image, row.another_scene, row.no_scene, row.indices)
        cells = " | ".join("" if other is None else f"{other:.2f}" for other in others)
        print(
            f"| {row.name} | {row.value:.3f} | {row.low:.3f} to {row.high:.3f} | {cells} "
            f"| {row.scenes} |",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table a part, and write all figures to `results/truth.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--model_path", default="bundled", help="a bridge's folder or Hub id")
    parser.add_argument("--parts", help="some of the parts, with commas between (default: all)")
    parser.add_argument("--limit", type=int, help="of scenes and conversations, for a first look")
    parser.add_argument("--answers", type=Path, default=RESULTS / "truth.jsonl")
    options = parser.parse_args(arguments)
    bridge = OlmoEarthVLMBridge.from_pretrained(options.model_path, device="cpu")
    asker = Asker(bridge, options.answers)
    conditions = CONDITIONS if bridge.config.scene_context else CONDITIONS[:1]
    folder, limit = options.data_dir, options.limit

    def read_scenes() -> list[KnownScene]:
        """Some scenes of unseen places, spread over them."""
        scenes = draw_snow_on(read_unseen(folder))
        count = min(limit or len(scenes), len(scenes))
        return [scenes[int(i)] for i in np.linspace(0, len(scenes) - 1, count)]

    parts: dict[str, Callable[[], list[Row | None]]] = {
        "unseen": lambda: score_unseen("unseen places", read_scenes(), asker, conditions),
        "photos": lambda: score_unseen("photos", as_photos(read_scenes()), asker, CONDITIONS[:1]),
        "practice": lambda: score_practice(folder / "s2_practice", asker, limit),
        "search": lambda: score_search(folder / "s2_practice", bridge),
        "bundled": lambda: score_bundled(asker, limit),
        "consistency": lambda: score_consistency(read_scenes(), asker),
        "conversations": lambda: score_conversations(folder, asker, limit),
        "judged": lambda: score_judged(folder, asker, limit),
    }
    chosen = options.parts.split(",") if options.parts else list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    found: list[Row | None] = []
    for part in chosen:
        rows = parts[part]()
        print_rows(rows)
        found += rows
    RESULTS.mkdir(exist_ok=True)
    result = {"bridge": bridge.revision, "rows": [asdict(row) for row in found if row]}
    (RESULTS / "truth.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
