"""The picture of a run's losses."""

from __future__ import annotations

from earthvlm.training.logging import draw_losses, plot_losses


def entry(stage: str, step: int) -> dict:
    return {"stage": stage, "step": step, "loss": {"caption": 3.0 / step}}


def test_a_loss_of_one_step_is_a_point(tmp_path):
    log = [entry("queries", 9), entry("bridge", 4), entry("validation", 2), entry("validation", 4)]
    axes = draw_losses(log).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines.keys() == {"caption (bridge)", "caption (validation)"}
    assert all(line.get_marker() == "o" for line in lines.values())
    assert all(tick == int(tick) for tick in axes.get_xticks())
    several = draw_losses([*log, entry("bridge", 5)]).axes[0].lines[0]
    assert (several.get_marker(), several.get_linestyle()) == ("None", "-")
    plot_losses(log, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000
