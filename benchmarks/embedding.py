"""How much faster scenes are embedded in batches than one by one.

python -m benchmarks.embedding
"""

from __future__ import annotations

import numpy as np

from benchmarks.report import report, time_calls
from earthvlm import OlmoEarthVLMBridge, Scene
from earthvlm.sentinel2 import BANDS

SCENES = 64


def main() -> None:
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    rng = np.random.default_rng(0)
    scenes = [
        Scene.from_array(rng.uniform(100, 4000, (64, 64, 12)).astype(np.float32), BANDS)
        for _ in range(SCENES)
    ]
    together = time_calls(lambda: bridge.embed(scenes, batch_size=32), 5)
    alone = time_calls(lambda: [bridge.embed([scene]) for scene in scenes], 5)
    rates = {
        "in batches of 32": [SCENES / s for s in together],
        "one by one": [SCENES / s for s in alone],
        "ratio": [a / t for a, t in zip(sorted(alone), sorted(together), strict=True)],
    }
    report("embedding", rates, "scenes/s (64 x 64)")


if __name__ == "__main__":
    main()
