"""What the benchmarks share: the machine's description, a table and a JSON file."""

from __future__ import annotations

import json
import os
import platform
import statistics
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def report(name: str, rows: dict[str, list[float]], unit: str) -> None:
    """Print medians with their spread, and write them to `results/NAME.json`."""
    import torch
    import transformers

    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),  # what else ran makes figures noise
        "bf16": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "llama-cpp-python": _version("llama-cpp-python"),
    }
    summary = {
        row: {"median": statistics.median(v), "low": min(v), "high": max(v), "runs": len(v)}
        for row, v in rows.items()
    }
    print(f"{name} ({machine['cores']} cores, torch {machine['torch']}, load {machine['load']})")
    for row, s in summary.items():
        print(f"  {row:<52} {s['median']:9.3f} {unit}  ({s['low']:.3f} to {s['high']:.3f})")
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine, "unit": unit, "rows": summary}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def _processor() -> str:
    """Its name where Linux tells it; Python knows the architecture alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
