"""Measure how long steps of a trained map head take with numbers below 1e-38 and without.

python -m benchmarks.denormals [--steps 6] [--rounds 2]

The bundled bridge's encoder and map head train on drawn scenes, in a process of their own for each
row, because threads keep what they were started with. Both rows draw the same scenes.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from benchmarks.report import report
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.segmentation import segment_tokens
from earthvlm.data.drawn.scenes import draw_scene
from earthvlm.scenes.scene import Scene
from earthvlm.training.losses.segmentation_loss import segmentation_loss
from earthvlm.training.process import denormals_flushed

BATCH, SIDE = 16, 64


def measure(steps: int, flushed: bool) -> float:
    """The median seconds of a step: forward and backward."""
    torch.manual_seed(0)
    rng, times = np.random.default_rng(0), []
    with denormals_flushed() if flushed else contextlib.nullcontext():
        bridge = OlmoEarthVLMBridge.from_pretrained("bundled", trainable=True)
        assert bridge.segmentation_head is not None
        bridge.encoder.requires_grad_(True)
        for _ in range(steps):
            drawn = [draw_scene(SIDE, rng) for _ in range(BATCH)]
            scenes = [bridge.encoder.prepare(Scene(pixels)) for pixels, _ in drawn]
            start = time.perf_counter()
            logits = segment_tokens(bridge.encoder, bridge.segmentation_head, scenes)
            segmentation_loss(logits, [labels for _, labels in drawn]).backward()
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--row", choices=["kept", "flushed"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(measure(arguments.steps, arguments.row == "flushed"))
        return
    found: dict[str, list[float]] = {"kept": [], "flushed": []}
    for _ in range(arguments.rounds):
        for row, seconds in found.items():
            command = [sys.executable, "-m", "benchmarks.denormals", "--row", row]
            command += ["--steps", str(arguments.steps)]
            seconds.append(float(subprocess.check_output(command, text=True).split()[-1]))
    report("denormals", found, "s a step")


if __name__ == "__main__":
    main()
