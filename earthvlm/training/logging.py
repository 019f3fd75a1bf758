"""The log of a run: entries of losses, their curve, and sample answers in trackers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_KEYS = ("image", "answer", "reference")


class RunningLosses:
    """This process's losses since the last log entry."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.losses: dict[str, list[Tensor]] = defaultdict(list)
        self._restart_clock()

    def _restart_clock(self) -> None:
        self.answer_tokens, self.started = 0, time.time()

    def add(self, losses: dict[str, Tensor], answer_tokens: int) -> None:
        """Add the losses of one step by name, and the answer tokens of its batches."""
        for name, value in losses.items():
            self.losses[name].append(value)
        self.answer_tokens += answer_tokens

    def state_dict(self) -> dict[str, list[float]]:
        """The losses by name, for a checkpoint."""
        return {name: [x.item() for x in losses] for name, losses in self.losses.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Restore what `state_dict` returned, on the device of new losses."""
        for name, losses in state.items():
            self.losses[name] = list(torch.tensor(losses, device=self.accelerator.device))

    def entry(self, stage: str, step: int, epoch: float, rate: float) -> dict:
        """A log entry of their means over all processes, which call this together."""
        own = {name: torch.stack(losses).float().mean() for name, losses in self.losses.items()}
        means = {n: v.item() for n, v in self.accelerator.reduce(own, "mean").items()}
        tokens = torch.tensor(float(self.answer_tokens), device=self.accelerator.device)
        speed = self.accelerator.reduce(tokens, "sum").item() / (time.time() - self.started)
        self.losses.clear()
        self._restart_clock()
        return {
            "stage": stage,
            "step": step,
            "epoch": round(epoch, 3),
            "loss": means,
            "learning_rate": rate,
            "tokens_per_second": round(speed),
        }


def plot_losses(log: list[dict], path: Path) -> None:
    """Plot the losses of the last stage and of the validation over the steps, as a PNG."""
    draw_losses(log).savefig(path, dpi=120)


def draw_losses(log: list[dict]) -> Figure:
    """Draw a line a loss; a loss of one step is a point."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4))  # a layout engine would double the time of a checkpoint
    axes = figure.add_subplot(xlabel="step", ylabel="loss", title="Training")
    last = [entry["stage"] for entry in log if entry["stage"] != "validation"][-1]
    for stage, style in ((last, "-"), ("validation", "o--")):
        entries = [entry for entry in log if entry["stage"] == stage]
        for name in entries[0]["loss"] if entries else ():
            steps = [entry["step"] for entry in entries]
            losses = [entry["loss"][name] for entry in entries]
            drawn = style if len(steps) > 1 else "o"
            axes.plot(steps, losses, drawn, label=f"{name} ({stage})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def log_samples(accelerator: Accelerator, samples: Sequence[dict[str, str]], step: int) -> None:
    """Send answers and references to each tracker, as a Markdown table."""
    cells = [[s[k].replace("|", "\\|").replace("\n", " ") for k in SAMPLE_KEYS] for s in samples]
    lines = [f"| {' | '.join(row)} |" for row in (SAMPLE_KEYS, ["---"] * len(SAMPLE_KEYS), *cells)]
    table = "\n".join(lines)
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.tracker.add_text("samples", table, step)
        elif tracker.name == "trackio":
            from trackio import Markdown

            tracker.log({"samples": Markdown(table)}, step=step)
