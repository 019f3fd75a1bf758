"""Scores of descriptions: BLEU-4, METEOR, ROUGE-L and CIDEr."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from earthvlm.metrics.results import BOOTSTRAP_SAMPLES, INPUTS, MetricResult, average_scores


def score_captions(
    captions: dict[str, list[str]], references: list[list[str]], seed: int = 0
) -> list[MetricResult]:
    """Return BLEU-4, METEOR, ROUGE-L and CIDEr of descriptions.

    METEOR is without WordNet: words match exactly or by their stems, not by synonyms. CIDEr goes up
    to 10, as in its authors' code; the others up to 1.

    Args:
        captions: A description of each tile by input (`earthvlm.metrics.results.INPUTS`).
        references: The texts that each tile's description is compared with.
        seed: Of the bootstrap's resamples.

    Raises:
        ModuleNotFoundError: The extra `evaluation` is not installed.
    """
    results = [_bleu(captions, references)]
    for name, score in (("METEOR", _meteor), ("ROUGE-L", _rouge), ("CIDEr", _cider)):
        scores = {kind: score(captions[kind], references) for kind in INPUTS}
        results.append(average_scores(name, scores, seed))
    return results


def _bleu(captions: dict[str, list[str]], references: list[list[str]]) -> MetricResult:
    from sacrebleu.metrics import BLEU

    most = max(map(len, references))
    streams: Any = [[r[i] if i < len(r) else None for r in references] for i in range(most)]

    def score(texts: list[str], resamples: int = 1) -> dict[str, float]:
        metric = BLEU()
        result = metric.corpus_score(texts, streams, n_bootstrap=resamples)
        signature = str(metric.get_signature())
        return json.loads(result.format(signature=signature, is_json=True, width=4))

    own = score(captions["scene"], BOOTSTRAP_SAMPLES)
    # sacrebleu leaves these out where every resample scores 0.
    mean, spread = (own.get(f"confidence_{part}", 0.0) / 100 for part in ("mean", "var"))
    shuffled_image, no_image = (score(captions[kind])["score"] / 100 for kind in INPUTS[1:])
    numbers = own["score"] / 100, mean - spread, mean + spread, shuffled_image, no_image
    return MetricResult("BLEU-4", *numbers, len(references))


def _meteor(captions: list[str], references: list[list[str]]) -> np.ndarray:
    from nltk.translate.meteor_score import meteor_score

    class NoSynonyms:
        def synsets(self, _word: str) -> list[str]:
            return []

    return np.array(
        [
            meteor_score([_words(r) for r in texts], _words(caption), wordnet=NoSynonyms())
            for caption, texts in zip(captions, references, strict=True)
        ]
    )


def _rouge(captions: list[str], references: list[list[str]]) -> np.ndarray:
    from pycocoevalcap.rouge.rouge import Rouge

    return _coco(Rouge(), captions, references)


def _cider(captions: list[str], references: list[list[str]]) -> np.ndarray:
    from pycocoevalcap.cider.cider import Cider

    return _coco(Cider(), captions, references)


def _coco(metric: Any, captions: list[str], references: list[list[str]]) -> np.ndarray:
    expected = {i: [" ".join(_words(r)) for r in texts] for i, texts in enumerate(references)}
    given = {i: [" ".join(_words(caption))] for i, caption in enumerate(captions)}
    return np.asarray(metric.compute_score(expected, given)[1])


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
