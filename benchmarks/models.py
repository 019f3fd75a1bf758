"""Encoders and language models: how large they are, and how many scenes a second they see.

python -m benchmarks.models [--only v1-nano v1.2-nano]

Encoders are built at random with the published shapes, so no Hub is needed; Moondream2's full size
is measured by benchmarks.moondream2.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from benchmarks.report import report
from earthvlm import Scene
from earthvlm.encoder import OlmoEarthEncoder
from earthvlm.language import load_language_model
from earthvlm.sentinel2 import BANDS

ENCODERS = ("v1-nano", "v1-tiny", "v1-base", "v1-large", "v1.2-nano", "v1.2-tiny", "v1.2-small")
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=ENCODERS, choices=ENCODERS)
    arguments = parser.parse_args()
    noise = np.random.default_rng(0).uniform(200, 4000, (128, 128, 12)).astype(np.float32)
    parameters, speed = {}, {}
    for name in arguments.only:
        encoder = OlmoEarthEncoder(f"random-{name}").eval()
        row = f"{name}, width {encoder.dim}"
        parameters[row] = [sum(p.numel() for p in encoder.parameters()) / 1e6]
        scenes = [encoder.prepare(Scene.from_array(noise, BANDS))] * BATCH
        with torch.inference_mode():
            encoder(scenes[:1])
            start = time.perf_counter()
            encoder(scenes)
        speed[row] = [BATCH / (time.perf_counter() - start)]
    language = load_language_model("embedded")
    count = sum(p.numel() for p in language.model.parameters()) / 1e6
    parameters[f"SmolLM2-135M-Instruct, width {language.dim}"] = [count]
    report("model_sizes", parameters, "M parameters")
    report("encoder_speed", speed, "scenes of 128 x 128 a second")


if __name__ == "__main__":
    main()
