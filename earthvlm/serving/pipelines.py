"""Pipelines that are called as those of transformers, with a bridge inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.models.language.chat_templates import Message
from earthvlm.models.query_encoder import SCENE_TEMPERATURE
from earthvlm.scenes.scene import Scene
from earthvlm.storage.hub import BUNDLED

Image = Scene | str | Path
HYPOTHESIS = "This is {}."


def pipeline(
    task: str = "image-text-to-text",
    model: str | Path | OlmoEarthVLMBridge = BUNDLED,
    device: str | None = None,
    **options: Any,
) -> ImageTextToText | ZeroShotClassification | ImageFeatures:
    """Make a pipeline for a task, as `transformers.pipeline` does.

    Args:
        task: "image-text-to-text", "zero-shot-image-classification" or "image-feature-extraction".
        model: a bridge, or what `OlmoEarthVLMBridge.from_pretrained` takes.
        device: where a bridge is loaded.
        options: of `from_pretrained`.

    Raises:
        ValueError: for another task, and as `from_pretrained` does.
    """
    if task not in TASKS:
        raise ValueError(f"There is no task {task!r}: choose from {', '.join(TASKS)}.")
    if not isinstance(model, OlmoEarthVLMBridge):
        model = OlmoEarthVLMBridge.from_pretrained(model, device, **options)
    return TASKS[task](model)


class _Pipeline:
    def __init__(self, bridge: OlmoEarthVLMBridge) -> None:
        self.model = bridge


class ImageTextToText(_Pipeline):
    """Answers questions: `pipe(images=..., text=...)`, or `pipe(text=messages)`."""

    def __call__(
        self,
        images: Image | Sequence[Image] | None = None,
        text: str | Sequence[Any] = DEFAULT_PROMPT,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        return_full_text: bool = False,
    ) -> list[dict[str, Any]]:
        """Answer one question about one image, or one about each of several.

        Args:
            images: scenes or their files; messages may hold them in place of this.
            text: a question, one for each image, or messages in transformers' chat form, whose
                parts of type "image" have a scene or a path under "image", "path" or "url".
            max_new_tokens: of each answer.
            temperature: see `OlmoEarthVLMBridge.generate`, as for the arguments after it.
            top_p: see temperature.
            top_k: see temperature.
            return_full_text: for messages, return them with the answer at their end.

        Returns:
            For each question `{"input_text": ..., "generated_text": ...}`.

        Raises:
            ValueError: messages without an image, or as `generate` does.
        """
        if not isinstance(text, str) and text and isinstance(text[0], Mapping):
            scene, messages = read_chat(text, images)
            pieces = self.model.stream(scene, messages, max_new_tokens, temperature, top_p, top_k)
            answer = "".join(pieces).strip()
            whole = [*text, {"role": "assistant", "content": answer}]
            return [{"input_text": text, "generated_text": whole if return_full_text else answer}]
        if images is None:
            raise ValueError("A question needs an image: pipe(images='scene.tif', text='...').")
        scenes = _open_all(images)
        questions = [text] * len(scenes) if isinstance(text, str) else list(text)
        answers = self.model.generate(scenes, questions, max_new_tokens, temperature, top_p, top_k)
        return [
            {"input_text": question, "generated_text": answer}
            for question, answer in zip(questions, answers, strict=True)
        ]


class ZeroShotClassification(_Pipeline):
    """Ranks labels by the similarity of a scene's embedding and a sentence with the label."""

    def __call__(
        self,
        image: Image | Sequence[Image],
        candidate_labels: Sequence[str],
        hypothesis_template: str = HYPOTHESIS,
    ) -> list[Any]:
        """Return `{"label": ..., "score": ...}` for each label, the most similar first.

        The scores of an image sum to 1. Several images give a list of lists.
        """
        from earthvlm.models.text_encoder import embed_sentences

        scenes = _open_all(image)
        sentences = embed_sentences([hypothesis_template.format(name) for name in candidate_labels])
        shares = softmax(self.model.embed(scenes) @ sentences.T / SCENE_TEMPERATURE, axis=1)
        found = [
            [{"label": candidate_labels[i], "score": float(row[i])} for i in np.argsort(-row)]
            for row in shares
        ]
        return found[0] if _is_one(image) else found


class ImageFeatures(_Pipeline):
    """Embeds scenes: `pipe(image)` is a list of 384 numbers, of unit length."""

    def __call__(self, images: Image | Sequence[Image]) -> list[Any]:
        """Return the embedding of an image, or a list of them for several."""
        scenes = _open_all(images)
        vectors = self.model.embed(scenes).tolist()
        return vectors[0] if _is_one(images) else vectors


TASKS: dict[str, Any] = {
    "image-text-to-text": ImageTextToText,
    "zero-shot-image-classification": ZeroShotClassification,
    "image-feature-extraction": ImageFeatures,
}


def read_chat(
    chat: Sequence[Any], images: Image | Sequence[Image] | None = None
) -> tuple[Scene, list[Message]]:
    """Read messages in transformers' form: the scene, and the texts of the turns.

    System messages are left out. Raises ValueError where there is not one image.
    """
    found = [] if images is None else _list_images(images)
    messages: list[Message] = []
    for message in chat:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part.get("type") == "image":
                named = next((part[k] for k in ("image", "path", "url") if part.get(k)), None)
                found += [named] if named is not None else []
        if message["role"] != "system":
            text = "\n".join(part["text"] for part in parts if part.get("type") == "text")
            messages.append({"role": message["role"], "content": text})
    if len(found) != 1:
        raise ValueError(f"A conversation is about one image; {len(found)} were given.")
    return _open(found[0]), messages


def _is_one(images: Image | Sequence[Image]) -> bool:
    return isinstance(images, Scene | str | Path)


def _list_images(images: Image | Sequence[Image]) -> list[Image]:
    return [images] if isinstance(images, Scene | str | Path) else list(images)


def _open_all(images: Image | Sequence[Image]) -> list[Scene]:
    return [_open(image) for image in _list_images(images)]


def _open(image: Image) -> Scene:
    return image if isinstance(image, Scene) else Scene.open(image)
