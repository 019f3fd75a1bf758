"""The Hub's file of evaluation results, from which leaderboards of a dataset are made.

The format is that of https://huggingface.co/docs/hub/eval-results: one entry for each metric, with
the dataset's Hub id. Results on data that the Hub does not have stay in the card alone.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from earthvlm.bridge.config import EVAL_RESULTS_FILE
from earthvlm.metrics.results import MetricResult


def write_eval_results(folder: Path, results: dict | None) -> None:
    """Write the results of `read_results` into a bridge's folder, or remove earlier ones."""
    path = folder / EVAL_RESULTS_FILE
    entries = _list_entries(results) if results is not None and results.get("dataset") else []
    if not entries:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(exist_ok=True)
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    path.write_text(text, "utf-8")


def _list_entries(results: dict) -> list[EvalResultEntry]:
    metrics = [MetricResult(**entry) for entry in results["metrics"]]
    return [
        EvalResultEntry(
            dataset_id=results["dataset"],
            task_id=re.sub(r"[^a-z0-9]+", "_", metric.name.lower()).strip("_"),
            value=round(metric.value, 4),
            date=results.get("date"),
            notes=_describe(metric, results["split"]),
        )
        for metric in metrics
    ]


def _describe(metric: MetricResult, split: str) -> str:
    none = "" if metric.no_image is None else f", no image {metric.no_image:.3f}"
    return (
        f"{metric.name} on {metric.tiles:,} tiles of split {split}, greedy decoding; 95 % interval "
        f"{metric.low:.3f} to {metric.high:.3f}, shuffled image {metric.shuffled_image:.3f}{none}"
    )
