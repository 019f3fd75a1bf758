"""Prompt formats of the families of language models, and the layers that LoRA adapts in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]  # {"role": "user" | "assistant", "content": text}

SYSTEM_PROMPT = "Satellite scene."  # short, because it is part of every prompt
# A part of a prompt: text to tokenize, token ids, or `SCENE_MARK`.
Segment = str | tuple[int, ...]
# Marks the scene while a chat template is applied; it is removed from what users type.
SCENE_MARK = "\ue000"


@dataclass(frozen=True)
class LanguageFamily:
    """Properties that the models of an architecture share.

    Attributes:
        lora_targets: the linear layers that an adapter is added to.
        chat_template: whether the tokenizer's chat template makes the prompt; otherwise it has the
            format that Moondream was trained with.
        system_turn: whether that template accepts a system turn.
        question_ids: token ids before and after a question, where tokens mark it instead of words.
    """

    lora_targets: tuple[str, ...]
    chat_template: bool = True
    system_turn: bool = True
    question_ids: tuple[tuple[int, ...], tuple[int, ...]] | None = None


_LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PHI_LAYERS = ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")
# By transformers' model type. Models whose templates rewrite earlier turns cannot be added.
FAMILIES = {
    "llama": LanguageFamily(_LLAMA_LAYERS),
    "qwen2": LanguageFamily(_LLAMA_LAYERS),
    "gemma": LanguageFamily(_LLAMA_LAYERS, system_turn=False),
    "gemma2": LanguageFamily(_LLAMA_LAYERS, system_turn=False),
    "gemma3_text": LanguageFamily(_LLAMA_LAYERS, system_turn=False),
    "phi": LanguageFamily(_PHI_LAYERS, chat_template=False),
}
# Moondream2 from 2025 on, with another tokenizer, whose end-of-text token is 0.
MOONDREAM_2025 = LanguageFamily(
    _PHI_LAYERS, chat_template=False, question_ids=((1, 15381, 2), (3,))
)


@dataclass(frozen=True)
class Prompt:
    """A conversation as token ids.

    Attributes:
        ids: all tokens but the scene's.
        scene_at: the index among them at which the scene is inserted.
        labels: the ids of the assistant's turns, stop tokens included; -100 elsewhere.
    """

    ids: tuple[int, ...]
    scene_at: int
    labels: tuple[int, ...]


def write_prompt(
    tokenizer: PreTrainedTokenizerBase,
    family: LanguageFamily,
    messages: Sequence[Message],
    context: str = "",
) -> Prompt:
    """Tokenize a conversation in the prompt format of a family.

    The scene is inserted before the first question, and the context, if there is one, stands
    between them in lines of its own. A conversation that ends with the user's turn ends with the
    beginning of the answer's.

    Raises ValueError where roles do not alternate, user first.
    """
    roles = [m["role"] for m in messages]
    if not roles or any(r != ("user", "assistant")[i % 2] for i, r in enumerate(roles)):
        raise ValueError("A conversation alternates between user and assistant, user first.")
    segments = (
        _template_segments(tokenizer, family, messages, context)
        if family.chat_template
        else _question_segments(tokenizer, family, messages, context)
    )
    ids: list[int] = []
    labels: list[int] = []
    scene_at = 0
    for segment, is_answer in segments:
        if segment == SCENE_MARK:
            scene_at = len(ids)
            continue
        if isinstance(segment, str):
            tokens = tokenizer(segment, add_special_tokens=False).input_ids
        else:
            tokens = list(segment)
        ids += tokens
        labels += tokens if is_answer else [-100] * len(tokens)
    return Prompt(tuple(ids), scene_at, tuple(labels))


def _template_segments(
    tokenizer: PreTrainedTokenizerBase,
    family: LanguageFamily,
    messages: Sequence[Message],
    context: str,
) -> list[tuple[Segment, bool]]:
    """Split the chat template's text around the scene and the assistant's turns."""

    def render(count: int, ready: bool) -> str:
        return tokenizer.apply_chat_template(
            turns[:count], tokenize=False, add_generation_prompt=ready
        )

    turns = [{"role": "system", "content": SYSTEM_PROMPT}] if family.system_turn else []
    first = len(turns)
    beginning = "\n".join([SCENE_MARK, *([context] if context else []), ""])
    for message in messages:
        mark = beginning if len(turns) == first else ""
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
    tokenizer: PreTrainedTokenizerBase,
    family: LanguageFamily,
    messages: Sequence[Message],
    context: str,
) -> list[tuple[Segment, bool]]:
    """Begin with the beginning-of-text token and the scene, then list questions and answers."""
    begin, end = (tokenizer.bos_token_id,), (tokenizer.eos_token_id,)
    segments: list[tuple[Segment, bool]] = [(begin, False), (SCENE_MARK, False)]
    segments += [(f"\n\n{context}", False)] if context else []
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
