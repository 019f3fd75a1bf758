"""The result of a metric: a mean over tiles, its confidence interval and two baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
BOOTSTRAP_SAMPLES = 2000
# Resamples computed together: ChatEarthNet's test split, 49,048 tiles, then takes some 100 MB.
RESAMPLES_AT_ONCE = 100
# What a bridge was given: the tile's own scene, another tile's, or none.
INPUTS = ("scene", "shuffled_image", "no_image")


@dataclass(frozen=True)
class MetricResult:
    """A mean score over tiles with its 95 % confidence interval and two baselines.

    shuffled_image: the score of the same bridge given another tile's scene; for retrieval, that of
        a random order.
    no_image: the score of the same bridge given no scene; None for retrieval.
    """

    name: str
    value: float
    low: float
    high: float
    shuffled_image: float
    no_image: float | None
    tiles: int


def average_scores(name: str, scores: dict[str, np.ndarray], seed: int = 0) -> MetricResult:
    """Average each tile's score.

    Args:
        name: The metric's name.
        scores: Each tile's score, `[N]`, by input (`INPUTS`).
        seed: Of the bootstrap's resamples.
    """
    own, shuffled_image, no_image = (scores[kind] for kind in INPUTS)
    low, high = confidence_interval(own, seed)
    means = float(shuffled_image.mean()), float(no_image.mean())
    return MetricResult(name, float(own.mean()), low, high, *means, len(own))


def score_losses(
    losses: dict[str, np.ndarray], tokens: np.ndarray, seed: int = 0
) -> list[MetricResult]:
    """Return the loss per token of the reference descriptions, and its perplexity.

    Args:
        losses: Each tile's loss, summed over its description's tokens, `[N]`, by input (`INPUTS`).
        tokens: The number of tokens of each description, `[N]`.
        seed: Of the bootstrap's resamples.
    """

    def mean(total: np.ndarray, count: np.ndarray, axis: int = -1) -> np.ndarray:
        return total.sum(axis) / count.sum(axis)

    low, high = bootstrap_interval((losses["scene"], tokens), mean, seed, paired=True)
    own, shuffled_image, no_image = (float(mean(losses[kind], tokens)) for kind in INPUTS)
    numbers = np.array([own, low, high, shuffled_image, no_image])
    return [
        _make_result("loss per token", numbers, len(tokens)),
        _make_result("perplexity", np.exp(numbers), len(tokens)),
    ]


def _make_result(name: str, numbers: np.ndarray, tiles: int) -> MetricResult:
    value, low, high, shuffled_image, no_image = numbers.tolist()
    return MetricResult(name, value, low, high, shuffled_image, no_image, tiles)


def confidence_interval(
    scores: np.ndarray, seed: int, statistic: Callable[..., np.ndarray] = np.mean
) -> tuple[float, float]:
    """Return the 95 % interval: Wilson's for a mean of zeros and ones, else the bootstrap's."""
    from scipy.stats import binomtest

    if statistic is not np.mean or not np.isin(scores, (0, 1)).all():
        return bootstrap_interval((scores,), statistic, seed)
    test = binomtest(int(scores.sum()), len(scores))
    interval = test.proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    data: tuple[np.ndarray, ...],
    statistic: Callable[..., np.ndarray],
    seed: int,
    paired: bool = False,
) -> tuple[float, float]:
    """Return the percentile bootstrap's 95 % interval of a statistic of tiles' numbers.

    data: one number a tile, `[N]`, for each argument of the statistic; paired: resampled together.
    """
    from scipy.stats import bootstrap

    interval = bootstrap(
        data,
        statistic,
        paired=paired,
        confidence_level=CONFIDENCE,
        n_resamples=BOOTSTRAP_SAMPLES,
        batch=RESAMPLES_AT_ONCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def as_markdown(results: Sequence[MetricResult]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| metric | value | 95 % interval | shuffled image | no image | tiles |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        no_image = "" if result.no_image is None else f"{result.no_image:.3f}"
        lines.append(
            f"| {result.name} | {result.value:.3f} | {result.low:.3f} to {result.high:.3f} "
            f"| {result.shuffled_image:.3f} | {no_image} | {result.tiles} |"
        )
    return "\n".join(lines)
