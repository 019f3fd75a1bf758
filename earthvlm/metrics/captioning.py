"""Scores of descriptions: BLEU-4, METEOR, ROUGE-L and CIDEr."""

from __future__ import annotations

import json
import re

import numpy as np

from earthvlm.metrics.results import BOOTSTRAP_SAMPLES, MetricResult, mean_result


def score_captions(
    captions: dict[str, list[str]], references: list[list[str]], seed: int = 0
) -> list[MetricResult]:
    """BLEU-4, METEOR, ROUGE-L and CIDEr of descriptions against what each tile has.

    captions: by kind: of each tile's own scene ("scene"), another's ("shuffled"), none
    ("no_image"). METEOR is without WordNet: words match as they are or by their stems, not by
    synonyms. CIDEr goes up to 10, as its authors' code has it; the others up to 1.

    Raises ModuleNotFoundError without the extra `evaluation`.
    """
    figures = [_bleu(captions, references)]
    for name, score in (("METEOR", _meteor), ("ROUGE-L", _rouge), ("CIDEr", _cider)):
        by_kind = {kind: score(texts, references) for kind, texts in captions.items()}
        figures.append(
            mean_result(name, by_kind["scene"], by_kind["shuffled"], by_kind["no_image"], seed)
        )
    return figures


def _bleu(captions: dict[str, list[str]], references: list[list[str]]) -> MetricResult:
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
    shuffled, no_image = (score(captions[kind])["score"] / 100 for kind in ("shuffled", "no_image"))
    numbers = own["score"] / 100, mean - spread, mean + spread, shuffled, no_image
    return MetricResult("BLEU-4", *numbers, len(references))


def _meteor(captions: list[str], references: list[list[str]]) -> np.ndarray:
    from nltk.translate.meteor_score import meteor_score

    class NoSynonyms:
        def synsets(self, _word: str) -> list:
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
    reference = {i: [" ".join(_words(r)) for r in refs] for i, refs in enumerate(references)}
    found = {i: [" ".join(_words(caption))] for i, caption in enumerate(captions)}
    return np.asarray(metric.compute_score(reference, found)[1])


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
