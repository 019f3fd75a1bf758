"""Likelihoods of given answers: questions with candidates are answered without generation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from earthvlm.bridge.batch import plan_batches, sum_answer_losses
from earthvlm.bridge.network import BridgeNetwork
from earthvlm.generation.sampling import check_prompt
from earthvlm.models.language.chat_templates import Message, Prompt
from earthvlm.scenes.scene import Scene

ROWS_AT_ONCE = 64  # candidates in one forward pass


@torch.inference_mode()
def score_candidates(
    bridge: BridgeNetwork,
    scenes: Sequence[Scene] | None,
    questions: Sequence[str],
    candidates: Sequence[Sequence[str]],
    per_token: bool = False,
) -> list[np.ndarray]:
    """Return the log-likelihood of each candidate answer to each question.

    Args:
        bridge: the model; each scene is encoded once.
        scenes: one for each question, or None for the no-image baseline.
        questions: N of them.
        candidates: for each question.
        per_token: the mean over an answer's tokens, in place of their sum, so that long answers
            are not less likely than short ones.

    Returns:
        For each question, its candidates' log-likelihoods, float64 `[C]`.

    Raises:
        ValueError: an empty question or candidate, or other numbers of scenes or candidates.
    """
    counts = {len(questions), len(candidates), len(questions if scenes is None else scenes)}
    if len(counts) != 1:
        raise ValueError("Each question needs its scene and its candidates.")
    for question, answers in zip(questions, candidates, strict=True):
        check_prompt(question)
        if not answers or not all(answer.strip() for answer in answers):
            raise ValueError("A question needs candidate answers, none of which is empty.")
    shown = {id(scene): scene for scene in scenes or ()}  # one that is asked about often, once
    distinct: list[Scene | None] = list(shown.values()) if scenes is not None else [None]
    places = {key: place for place, key in enumerate(shown)}
    asked: list[list[int]] = [[] for _ in distinct]
    for number in range(len(questions)):
        asked[places[id(scenes[number])] if scenes is not None else 0].append(number)
    sizes = [bridge.encoder.count_patches(scene) if scene else 0 for scene in distinct]
    scores: list[np.ndarray] = [np.zeros(0)] * len(questions)
    for group in plan_batches(sizes, ROWS_AT_ONCE):
        batch = [scene for scene in (distinct[i] for i in group) if scene is not None]
        prefix = bridge.scene_prefix(batch) if batch else bridge.empty_prefix(len(group))
        numbers = [(place, number) for place, i in enumerate(group) for number in asked[i]]
        rows = [(place, n, answer) for place, n in numbers for answer in candidates[n]]
        found = [
            _score_rows(
                bridge,
                [
                    _encode(bridge, distinct[group[place]], questions[n], answer)
                    for place, n, answer in rows[start : start + ROWS_AT_ONCE]
                ],
                prefix[[place for place, _, _ in rows[start : start + ROWS_AT_ONCE]]],
                bridge.image_tokens if batch else 0,
                per_token,
            )
            for start in range(0, len(rows), ROWS_AT_ONCE)
        ]
        ends = np.cumsum([len(candidates[n]) for _, n in numbers])
        for (_, n), part in zip(numbers, np.split(np.concatenate(found), ends[:-1]), strict=True):
            scores[n] = part
    return scores


def _encode(bridge: BridgeNetwork, scene: Scene | None, question: str, answer: str) -> Prompt:
    messages: list[Message] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return bridge.language.encode(messages, bridge.write_context(scene))


def _score_rows(
    bridge: BridgeNetwork,
    prompts: Sequence[Prompt],
    prefix: torch.Tensor,
    image_tokens: int,
    per_token: bool,
) -> np.ndarray:
    batch = bridge.collate([], prompts)
    losses, counts = sum_answer_losses(bridge.language, batch, prefix, image_tokens)
    total = -losses.double()
    return (total / counts if per_token else total).cpu().numpy()
