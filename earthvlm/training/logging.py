"""What a run's log says of its losses, and their curve."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor


class RunningLosses:
    """Losses since the last log entry, of which each process has its own."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.losses: dict[str, list[Tensor]] = defaultdict(list)
        self.began = time.time()

    def add(self, losses: dict[str, Tensor]) -> None:
        """Take in the losses of one step, by name."""
        for name, value in losses.items():
            self.losses[name].append(value)

    def values(self) -> dict[str, list[float]]:
        """The losses by name, for a checkpoint."""
        return {name: [x.item() for x in losses] for name, losses in self.losses.items()}

    def load(self, values: dict[str, list[float]]) -> None:
        """Restore what `values` returned, on the device where new losses come from."""
        for name, losses in values.items():
            self.losses[name] = list(torch.tensor(losses, device=self.accelerator.device))

    def entry(self, stage: str, step: int, epoch: float, rate: float) -> dict:
        """What the log says of them, over all processes, which call this together."""
        own = {n: torch.stack(v).float().mean() for n, v in self.losses.items()}
        means = {n: v.item() for n, v in self.accelerator.reduce(own, "mean").items()}
        tokens = means.pop("answer_tokens", 0.0) * len(self.losses.get("answer_tokens", ()))
        speed = tokens * self.accelerator.num_processes / (time.time() - self.began)
        self.losses.clear()
        self.began = time.time()
        return {
            "stage": stage,
            "step": step,
            "epoch": round(epoch, 3),
            "loss": means,
            "learning_rate": rate,
            "tokens_per_second": round(speed),
        }


def plot_losses(log: list[dict], path: Path) -> None:
    """Draw each loss of the last stage over its steps, validation beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", title="Training")
    last = [entry["stage"] for entry in log if entry["stage"] != "validation"][-1]
    for stage, style in ((last, "-"), ("validation", "o--")):
        entries = [entry for entry in log if entry["stage"] == stage]
        for name in entries[0]["loss"] if entries else ():
            steps = [entry["step"] for entry in entries]
            axes.plot(steps, [e["loss"][name] for e in entries], style, label=f"{name} ({stage})")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


KEYS = ("image", "answer", "reference")


def log_samples(accelerator: Accelerator, samples: Sequence[dict[str, str]], step: int) -> None:
    """Send answers beside what is true to each tracker, as a Markdown table."""
    cells = [[s[k].replace("|", "\\|").replace("\n", " ") for k in KEYS] for s in samples]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    table = "\n".join(["| image | answer | what is true |", "|---|---|---|", *lines])
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.tracker.add_text("samples", table, step)
        elif tracker.name == "trackio":
            from trackio import Markdown

            tracker.log({"samples": Markdown(table)}, step=step)
