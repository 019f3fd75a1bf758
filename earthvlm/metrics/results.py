"""How answers, descriptions and searches are scored, and how sure of a mean one can be."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
BOOTSTRAP_SAMPLES = 2000
# So that 49,048 tiles, ChatEarthNet's largest split but one, are scored in some 100 MB.
RESAMPLES_AT_ONCE = 100
SENTENCES_AT_ONCE = 256
_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)  # "north of it" denies nothing


@dataclass(frozen=True)
class MetricResult:
    """A mean score over tiles with its 95 % interval, beside what seeing less would bring.

    shuffled: the same where the bridge is given another tile's scene; for a search, where it ranks
        by chance.
    no_image: the same where the bridge is given none, or None where that says nothing.
    """

    name: str
    value: float
    low: float
    high: float
    shuffled: float
    no_image: float | None
    tiles: int


def mean_result(
    name: str, scores: np.ndarray, shuffled: np.ndarray, no_image: np.ndarray, seed: int = 0
) -> MetricResult:
    """The mean of each tile's score: Wilson's interval for 0 and 1, the bootstrap's for others."""
    low, high = interval(scores, seed)
    means = float(scores.mean()), low, high, float(shuffled.mean()), float(no_image.mean())
    return MetricResult(name, *means, len(scores))


def score_losses(
    losses: dict[str, np.ndarray], tokens: np.ndarray, seed: int = 0
) -> list[MetricResult]:
    """Loss a token of the description a tile has, and its perplexity.

    losses: of each tile's description, summed over its tokens, given its own scene ("scene"),
        another's ("shuffled") and none ("no_image").
    """
    from scipy.stats import bootstrap

    def mean(total: np.ndarray, count: np.ndarray, axis: int = -1) -> np.ndarray:
        return total.sum(axis) / count.sum(axis)

    between = bootstrap(
        (losses["scene"], tokens),
        mean,
        paired=True,
        confidence_level=CONFIDENCE,
        n_resamples=BOOTSTRAP_SAMPLES,
        batch=RESAMPLES_AT_ONCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    kinds = (losses[kind] for kind in ("scene", "shuffled", "no_image"))
    own, shuffled, no_image = (float(mean(values, tokens)) for values in kinds)
    numbers = np.array([own, between.low, between.high, shuffled, no_image])
    return [
        MetricResult("loss a token", *numbers.tolist(), len(tokens)),
        MetricResult("perplexity", *np.exp(numbers).tolist(), len(tokens)),
    ]


def interval(
    scores: np.ndarray, seed: int, statistic: Callable[..., np.ndarray] = np.mean
) -> tuple[float, float]:
    """Wilson's interval for a mean of 0 and 1, the bootstrap's for others."""
    from scipy.stats import binomtest, bootstrap

    if statistic is np.mean and np.isin(scores, (0, 1)).all():
        test = binomtest(int(scores.sum()), len(scores))
        between = test.proportion_ci(CONFIDENCE, method="wilson")
    else:
        between = bootstrap(
            (scores,),
            statistic,
            confidence_level=CONFIDENCE,
            n_resamples=BOOTSTRAP_SAMPLES,
            batch=RESAMPLES_AT_ONCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(between.low), float(between.high)


def as_markdown(figures: Sequence[MetricResult]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| measure | value | 95 % interval | another's scene | no scene | tiles |",
        "|---|---|---|---|---|---|",
    ]
    for f in figures:
        no_image = "" if f.no_image is None else f"{f.no_image:.3f}"
        between = f"{f.low:.3f} to {f.high:.3f}"
        lines.append(
            f"| {f.name} | {f.value:.3f} | {between} | {f.shuffled:.3f} | {no_image} | {f.tiles} |"
        )
    return "\n".join(lines)
