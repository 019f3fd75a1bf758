"""Measure Moondream2's full size with random weights: loading, memory and speed.

python -m benchmarks.moondream2 [--folder FOLDER]

Writes a checkpoint of the published layout, sizes and type (2.8 GB, float16, text model alone) to a
temporary folder, or uses one that exists. Each type of weights is measured in its own process, for
its own peak memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import report

LAYERS, WIDTH, FEED_FORWARD, VOCABULARY = 24, 2048, 8192, 51200
# Tokens that are timed, by what weights are kept in. float32 goes without a cache of keys and
# values: it is what the others are compared with.
TOKENS = {"bfloat16": 12, "int8": 12, "float32": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="a checkpoint, or where to write one")
    parser.add_argument("--measure", choices=TOKENS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measure(arguments.folder, arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "model.safetensors").is_file():
            _write(folder)
        measured = {}
        for dtype in TOKENS:
            command = [sys.executable, "-m", "benchmarks.moondream2", "--measure", dtype]
            done = subprocess.run(
                [*command, "--folder", str(folder)], check=True, capture_output=True, text=True
            )
            measured[dtype] = json.loads(done.stdout.splitlines()[-1])
    full = measured["float32"]["seconds a token"]
    cached = {kind: found for kind, found in measured.items() if kind != "float32"}
    report("moondream2_load", {k: [v["load"]] for k, v in cached.items()}, "s to load")
    report("moondream2_memory", {f"{k}, peak": [v["peak"]] for k, v in measured.items()}, "GB")
    report("moondream2_first", {k: [v["first"]] for k, v in cached.items()}, "s to the first token")
    seconds = {f"{kind}, cached": [found["seconds a token"]] for kind, found in cached.items()}
    report("moondream2_decoding", seconds | {"float32, no cache": [full]}, "s/token")
    report(
        "moondream2_ratio",
        {f"{kind}, cached": [full / found["seconds a token"]] for kind, found in cached.items()},
        "times as fast as float32 without a cache",
    )


def _write(folder: Path) -> None:
    """A checkpoint of the 2024-08-26 layout, numbers at random."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models

    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int) -> None:
        scale = 0.02 if len(shape) == 2 else 0.0
        tensors[name] = (scale * torch.randn(shape, generator=generator)).half()

    def linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = torch.ones(WIDTH).half()
        add(f"{name}.bias", WIDTH)

    add("text_model.transformer.embd.wte.weight", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        block = f"text_model.transformer.h.{layer}"
        norm(f"{block}.ln")
        linear(f"{block}.mixer.Wqkv", WIDTH, 3 * WIDTH)
        linear(f"{block}.mixer.out_proj", WIDTH, WIDTH)
        linear(f"{block}.mlp.fc1", WIDTH, FEED_FORWARD)
        linear(f"{block}.mlp.fc2", FEED_FORWARD, WIDTH)
    norm("text_model.lm_head.ln")
    linear("text_model.lm_head.linear", WIDTH, VOCABULARY)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "moondream1"}))
    tokenizer = Tokenizer(models.BPE({"<|endoftext|>": 0, "a": 1}, []))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(tensors, folder / "model.safetensors")


def _measure(folder: Path, dtype: str) -> dict[str, float]:
    import torch

    from earthvlm.models.language.language_model import load_language_model

    start = time.perf_counter()
    model = load_language_model(str(folder), getattr(torch, dtype)).model
    load = time.perf_counter() - start
    cached = dtype != "float32"
    # As long as a question about a scene: 32 vectors and some words.
    ids = torch.randint(0, VOCABULARY, (1, 64), generator=torch.Generator().manual_seed(0))

    def generate(count: int) -> float:
        start = time.perf_counter()
        model.generate(
            ids,
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            use_cache=cached,
            pad_token_id=0,
        )
        return time.perf_counter() - start

    first = generate(1)
    rest = generate(1 + TOKENS[dtype]) - first
    # Not getrusage's, in which the peak of the process that started this one stays.
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e6
    return {"load": load, "first": first, "seconds a token": rest / TOKENS[dtype], "peak": peak}


if __name__ == "__main__":
    main()
