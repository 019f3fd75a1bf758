"""Asking a language model: what may be asked, how words are chosen, and words as they come."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from earthvlm.language import LanguageModel

DEFAULT_PROMPT = "Describe this scene."
MAX_PROMPT_CHARACTERS = 2000


def check_prompt(prompt: str) -> None:
    """Raises ValueError for a prompt that is empty or over `MAX_PROMPT_CHARACTERS`."""
    if not prompt.strip():
        raise ValueError("The question is empty: ask something about the scene.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise ValueError(
            f"The question has {len(prompt):,} characters: ask in at most "
            f"{MAX_PROMPT_CHARACTERS:,}."
        )


def generation_options(
    max_length: int, temperature: float, top_p: float, top_k: int
) -> dict[str, object]:
    """Keywords for transformers' `generate`. Raises ValueError for numbers out of range."""
    if max_length < 1 or temperature < 0 or not 0 < top_p <= 1 or top_k < 0:
        raise ValueError(
            "An answer needs max_length of at least 1, temperature of at least 0, top_p over 0 and "
            "up to 1, and top_k of at least 0 (0 is off)."
        )
    if temperature == 0:
        return {"max_new_tokens": max_length, "do_sample": False}
    return {
        "max_new_tokens": max_length,
        "do_sample": True,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
    }


def stream_pieces(
    language: LanguageModel, inputs: Mapping[str, object], stop: threading.Event | None = None
) -> Iterator[str]:
    """Generate in a thread and yield text as it comes; errors of the model are raised here.

    inputs: keywords for `generate`. Setting `stop`, or closing the iterator, ends it within a
    token.
    """
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    stop = stop or threading.Event()
    done = threading.Event()
    streamer = TextIteratorStreamer(language.tokenizer, skip_special_tokens=True)
    errors: list[BaseException] = []

    def should_stop(ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        return torch.full((len(ids),), stop.is_set() or done.is_set(), device=ids.device)

    def work() -> None:
        try:
            with torch.inference_mode():
                language.model.generate(
                    **inputs,
                    eos_token_id=language.stop_ids,
                    pad_token_id=language.stop_ids[0],
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([should_stop]),
                )
        except BaseException as error:
            errors.append(error)
            streamer.end()

    thread = threading.Thread(target=work, name="earthvlm-stream", daemon=True)
    thread.start()
    try:
        yield from (piece for piece in streamer if piece)
    finally:
        done.set()
        thread.join()
    if errors:
        raise errors[0]
