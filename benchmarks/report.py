"""What the benchmarks share: timing, the machine's description, a table and a JSON file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def time_calls(call: Callable[[], object], repeats: int) -> list[float]:
    """Seconds each of some calls took, after one that does not count."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def report(name: str, rows: dict[str, list[float]], unit: str) -> None:
    """Print medians with their spread, and write them to `results/NAME.json`."""
    import torch
    import transformers

    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "bf16": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    summary = {
        row: {"median": statistics.median(v), "low": min(v), "high": max(v), "runs": len(v)}
        for row, v in rows.items()
    }
    print(f"{name} ({machine['cores']} cores, torch {machine['torch']})")
    for row, s in summary.items():
        print(f"  {row:<44} {s['median']:9.3f} {unit}  ({s['low']:.3f} to {s['high']:.3f})")
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine, "unit": unit, "rows": summary}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
