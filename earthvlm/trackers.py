"""What trackers are told beside numbers: what the bridge says of a few scenes."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator

KEYS = ("image", "answer", "truth")


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
