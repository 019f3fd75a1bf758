"""How each family of language models wants to be asked: prompt formats, and what LoRA adapts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]  # {"role": "user" | "assistant", "content": words}

SYSTEM_PROMPT = "Satellite scene."  # short: it is read before every answer
# A part of a prompt: text to tokenise, token ids as they are, or `SCENE_MARK` itself.
Segment = str | tuple[int, ...]
# Stands for the scene while a chat template is applied; no template and no user writes it.
SCENE_MARK = "\ue000"


@dataclass(frozen=True)
class LanguageFamily:
    """What the models of one architecture have in common.

    lora_targets: the linear layers an adapter goes into.
    chat_template: whether the tokenizer's own chat template makes the prompt; otherwise questions
        and answers are written out, as Moondream was trained.
    system_turn: whether that template knows a system's turn.
    question_ids: token ids before and after a question where no words mark it.
    """

    lora_targets: tuple[str, ...]
    chat_template: bool = True
    system_turn: bool = True
    question_ids: tuple[tuple[int, ...], tuple[int, ...]] | None = None


_LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PHI_LAYERS = ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")
# By transformers' model type. Models whose templates rewrite earlier turns have no place here.
FAMILIES = {
    "llama": LanguageFamily(_LLAMA_LAYERS),
    "qwen2": LanguageFamily(_LLAMA_LAYERS),
    "gemma": LanguageFamily(_LLAMA_LAYERS, system_turn=False),
    "gemma2": LanguageFamily(_LLAMA_LAYERS, system_turn=False),
    "gemma3_text": LanguageFamily(_LLAMA_LAYERS, system_turn=False),
    "phi": LanguageFamily(_PHI_LAYERS, chat_template=False),
}
# Moondream2 from 2025 on, whose tokenizer is another: its end-of-text token is 0.
MOONDREAM_2025 = LanguageFamily(
    _PHI_LAYERS, chat_template=False, question_ids=((1, 15381, 2), (3,))
)


@dataclass(frozen=True)
class Prompt:
    """A conversation as token ids.

    ids: all tokens but the scene's.
    scene_at: how many of them come before the scene's.
    labels: ids again where the assistant speaks (its stop token included), -100 elsewhere.
    """

    ids: tuple[int, ...]
    scene_at: int
    labels: tuple[int, ...]


def write_prompt(
    tokenizer: PreTrainedTokenizerBase, family: LanguageFamily, messages: Sequence[Message]
) -> Prompt:
    """Write a conversation as the models of a family were trained to read it.

    The scene stands before the first question. A conversation that ends with the user's
    words ends ready for the answer.

    Raises ValueError where roles do not alternate from the user on.
    """
    roles = [m["role"] for m in messages]
    if not roles or any(r != ("user", "assistant")[i % 2] for i, r in enumerate(roles)):
        raise ValueError("A conversation alternates between user and assistant, user first.")
    segments = (
        _template_segments(tokenizer, family, messages)
        if family.chat_template
        else _question_segments(tokenizer, family, messages)
    )
    ids: list[int] = []
    labels: list[int] = []
    scene_at = 0
    for written, spoken in segments:
        if written == SCENE_MARK:
            scene_at = len(ids)
            continue
        tokens = written
        if isinstance(written, str):
            tokens = tokenizer(written, add_special_tokens=False).input_ids
        ids += tokens
        labels += tokens if spoken else [-100] * len(tokens)
    return Prompt(tuple(ids), scene_at, tuple(labels))


def _template_segments(
    tokenizer: PreTrainedTokenizerBase, family: LanguageFamily, messages: Sequence[Message]
) -> list[tuple[Segment, bool]]:
    """The chat template's text, cut around the scene and where the assistant speaks."""

    def render(count: int, ready: bool) -> str:
        return tokenizer.apply_chat_template(
            turns[:count], tokenize=False, add_generation_prompt=ready
        )

    turns = [{"role": "system", "content": SYSTEM_PROMPT}] if family.system_turn else []
    first = len(turns)
    for message in messages:
        mark = f"{SCENE_MARK}\n" if len(turns) == first else ""
        turns.append({**message, "content": mark + _unmarked(message["content"])})
    segments: list[tuple[Segment, bool]] = []
    done = ""
    for count in range(first + 1, len(turns) + 1):
        answered = turns[count - 1]["role"] == "assistant"
        text = render(count, ready=not answered)
        if not text.startswith(done):
            raise ValueError("This model's chat template rewrites earlier turns.")
        before, mark, after = text[len(done) :].partition(SCENE_MARK)
        segments += [(part, answered) for part in (before, mark, after) if part]
        done = text
    return segments


def _question_segments(
    tokenizer: PreTrainedTokenizerBase, family: LanguageFamily, messages: Sequence[Message]
) -> list[tuple[Segment, bool]]:
    """The scene after the beginning-of-text token, then questions and answers."""
    begin, end = (tokenizer.bos_token_id,), (tokenizer.eos_token_id,)
    segments: list[tuple[Segment, bool]] = [(begin, False), (SCENE_MARK, False)]
    for message in messages:
        words = _unmarked(message["content"])
        if message["role"] == "assistant":
            blank = "" if family.question_ids else " "
            segments += [(blank + words, True), (end, True)]
        elif family.question_ids:
            before, after = family.question_ids
            segments += [(before, False), (words, False), (after, False)]
        else:
            segments.append((f"\n\nQuestion: {words}\n\nAnswer:", False))
    return segments


def _unmarked(words: str) -> str:
    return words.replace(SCENE_MARK, "")
