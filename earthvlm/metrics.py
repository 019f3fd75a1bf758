"""How answers, descriptions and searches are scored, and how sure of a mean one can be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from earthvlm.conversations import IN_VIEW, MENTIONED
from earthvlm.facts import SceneFacts
from earthvlm.mentions import captioned_land_cover, mentioned_land_cover

CONFIDENCE = 0.95
BOOTSTRAP_SAMPLES = 2000
# So that 49,048 tiles, ChatEarthNet's largest split but one, are scored in some 100 MB.
RESAMPLES_AT_ONCE = 100
SENTENCES_AT_ONCE = 256
RECALL_AT = (1, 5, 10)
_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)  # "north of it" denies nothing

Truth = SceneFacts | Sequence[str]  # a tile's facts, or its captions
Score = Callable[[str, Truth, str], float]  # answer, truth, place asked about -> 0 to 1


@dataclass(frozen=True)
class Figure:
    """A mean score over tiles with its 95 % interval, beside what seeing less would bring.

    blind: the same where the bridge is given another tile's scene; for a search, where it ranks
        by chance.
    no_scene: the same where the bridge is given none, or None where that says nothing.
    """

    name: str
    value: float
    low: float
    high: float
    blind: float
    no_scene: float | None
    tiles: int


@dataclass(frozen=True)
class Task:
    """A question asked of every tile. A {place} in it is filled with a quarter by turns."""

    name: str
    question: str
    score: Score
    max_length: int


def score_dominant(answer: str, facts: SceneFacts, place: str) -> float:
    """1 where the first land cover an answer names is the one with the largest share, else 0."""
    named = mentioned_land_cover(answer)
    return float(bool(named) and named[0] == facts.dominant)


def score_water(answer: str, facts: SceneFacts, place: str) -> float:
    """1 where an answer begins with yes and water is in view, or with no and none is, else 0."""
    says = _YES_OR_NO.match(answer)
    there = facts.shares["water"] > IN_VIEW
    return float(says is not None and (says[1].lower() == "yes") == there)


def score_quarter(answer: str, facts: SceneFacts, place: str) -> float:
    """As `score_dominant`, of the quarter called `place`."""
    return score_dominant(answer, facts.quarter(place), place)


def score_mentions(answer: str, truth: Truth, place: str) -> float:
    """F1 of the land covers named, against those that are there."""
    named, there = _mentions(answer, truth)
    return 2 * len(named & there) / (len(named) + len(there)) if named | there else 1.0


def score_mentions_precision(answer: str, truth: Truth, place: str) -> float:
    """How many of the land covers named are there."""
    named, there = _mentions(answer, truth)
    return len(named & there) / max(len(named), 1) if named | there else 1.0


def score_mentions_recall(answer: str, truth: Truth, place: str) -> float:
    """How many of the land covers that are there are named."""
    named, there = _mentions(answer, truth)
    return len(named & there) / max(len(there), 1) if named | there else 1.0


def _mentions(answer: str, truth: Truth) -> tuple[set[str], set[str]]:
    """Land covers an answer names, and those of more than 8 percent, or that a caption names."""
    if isinstance(truth, SceneFacts):
        there = {cover for cover, share in truth.shares.items() if share > MENTIONED}
        return set(mentioned_land_cover(answer)), there
    return captioned_land_cover(answer), set().union(*map(captioned_land_cover, truth))


def mean_figure(
    name: str, scores: np.ndarray, blind: np.ndarray, no_scene: np.ndarray, seed: int = 0
) -> Figure:
    """The mean of each tile's score: Wilson's interval for 0 and 1, the bootstrap's for others."""
    low, high = interval(scores, seed)
    means = float(scores.mean()), low, high, float(blind.mean()), float(no_scene.mean())
    return Figure(name, *means, len(scores))


def loss_figures(losses: dict[str, np.ndarray], tokens: np.ndarray, seed: int = 0) -> list[Figure]:
    """Loss a token of the description a tile has, and its perplexity.

    losses: of each tile's description, summed over its tokens, given its own scene ("scene"),
        another's ("blind") and none ("no_scene").
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
    kinds = (losses[kind] for kind in ("scene", "blind", "no_scene"))
    own, blind, no_scene = (float(mean(values, tokens)) for values in kinds)
    numbers = np.array([own, between.low, between.high, blind, no_scene])
    return [
        Figure("loss a token", *numbers.tolist(), len(tokens)),
        Figure("perplexity", *np.exp(numbers).tolist(), len(tokens)),
    ]


def caption_figures(
    captions: dict[str, list[str]], references: list[list[str]], seed: int = 0
) -> list[Figure]:
    """BLEU-4, METEOR, ROUGE-L and CIDEr of descriptions against what each tile has.

    captions: by kind: of each tile's own scene ("scene"), another's ("blind"), none ("no_scene").
    METEOR is without WordNet: words match as they are or by their stems, not by synonyms. CIDEr
    goes up to 10, as its authors' code has it; the others up to 1.

    Raises ModuleNotFoundError without the extra `evaluation`.
    """
    figures = [_bleu(captions, references)]
    for name, score in (("METEOR", _meteor), ("ROUGE-L", _rouge), ("CIDEr", _cider)):
        by_kind = {kind: score(texts, references) for kind, texts in captions.items()}
        figures.append(
            mean_figure(name, by_kind["scene"], by_kind["blind"], by_kind["no_scene"], seed)
        )
    return figures


def _bleu(captions: dict[str, list[str]], references: list[list[str]]) -> Figure:
    from sacrebleu.metrics import BLEU

    most = max(map(len, references))
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]

    def score(texts: list[str], bootstraps: int = 1) -> dict[str, float]:
        metric = BLEU()
        result = metric.corpus_score(texts, streams, n_bootstrap=bootstraps)
        signature = str(metric.get_signature())
        return json.loads(result.format(signature=signature, is_json=True, width=4))

    own = score(captions["scene"], BOOTSTRAP_SAMPLES)
    # Left out where every resample scores 0.
    mean, spread = (own.get(f"confidence_{part}", 0.0) / 100 for part in ("mean", "var"))
    blind, no_scene = (score(captions[kind])["score"] / 100 for kind in ("blind", "no_scene"))
    numbers = own["score"] / 100, mean - spread, mean + spread, blind, no_scene
    return Figure("BLEU-4", *numbers, len(references))


def _meteor(captions: list[str], references: list[list[str]]) -> np.ndarray:
    from nltk.translate.meteor_score import meteor_score

    class NoSynonyms:
        def synsets(self, word: str) -> list:
            return []

    return np.array(
        [
            meteor_score([_words(r) for r in refs], _words(caption), wordnet=NoSynonyms())
            for caption, refs in zip(captions, references, strict=True)
        ]
    )


def _rouge(captions: list[str], references: list[list[str]]) -> np.ndarray:
    from pycocoevalcap.rouge.rouge import Rouge

    return _coco(Rouge(), captions, references)


def _cider(captions: list[str], references: list[list[str]]) -> np.ndarray:
    from pycocoevalcap.cider.cider import Cider

    return _coco(Cider(), captions, references)


def _coco(metric: object, captions: list[str], references: list[list[str]]) -> np.ndarray:
    truth = {i: [" ".join(_words(r)) for r in refs] for i, refs in enumerate(references)}
    found = {i: [" ".join(_words(caption))] for i, caption in enumerate(captions)}
    return np.asarray(metric.compute_score(truth, found)[1])


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def pair_ranks(sentences: np.ndarray, scenes: np.ndarray) -> np.ndarray:
    """For each sentence `[N, D]`, the rank of its own scene among all scenes `[N, D]`, from 1."""
    ranks = []
    for start in range(0, len(sentences), SENTENCES_AT_ONCE):  # all similarities are gigabytes
        block = sentences[start : start + SENTENCES_AT_ONCE]
        similarity = block @ scenes.T
        own = similarity[np.arange(len(block)), start + np.arange(len(block))]
        # A tie counts against the scene: ranks are of the worst place it may have.
        ranks.append((similarity >= own[:, None]).sum(1))
    return np.concatenate(ranks)


def search_figures(ranks: np.ndarray, seed: int = 0) -> list[Figure]:
    """Recall and median rank from what `pair_ranks` returned."""
    count = len(ranks)
    figures = []
    for k in RECALL_AT:
        low, high = interval(ranks <= k, seed)
        name, chance = f"sentence to scene, recall@{k}", min(k / count, 1.0)
        figures.append(Figure(name, float((ranks <= k).mean()), low, high, chance, None, count))
    low, high = interval(ranks, seed, np.median)
    median = float(np.median(ranks))
    chance = (count + 1) / 2
    name = "sentence to scene, median rank"
    return [*figures, Figure(name, median, low, high, chance, None, count)]


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


def as_markdown(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| measure | value | 95 % interval | another's scene | no scene | tiles |",
        "|---|---|---|---|---|---|",
    ]
    for f in figures:
        no_scene = "" if f.no_scene is None else f"{f.no_scene:.3f}"
        between = f"{f.low:.3f} to {f.high:.3f}"
        lines.append(
            f"| {f.name} | {f.value:.3f} | {between} | {f.blind:.3f} | {no_scene} | {f.tiles} |"
        )
    return "\n".join(lines)
