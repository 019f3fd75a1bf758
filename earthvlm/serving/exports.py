"""Exports: a conversation as Markdown, and one answer as a quotation with its source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from earthvlm.metrics.agreement import find_disagreements
from earthvlm.models.language.chat_templates import Message
from earthvlm.scenes.analysis.spectral_indices import SOURCES, SpectralIndices, percent
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.scene import Scene
from earthvlm.serving.measurements import select_measurements

# Characters that Markdown, including GitHub's dialect, may read as markup: anywhere, and at the
# start of a line, where they begin a list, a rule or an underlined heading.
_MARKUP = re.compile(r"[\\`*_\[\]<>#|&~$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LINE_START = re.compile(r"^(\d*)([-+=.)])")
NO_CONVERSATION = "There is no conversation yet: ask something about the scene first."


def conversation_to_markdown(
    scene: Scene,
    messages: Sequence[Message],
    measurements: SpectralIndices | None,
    model_summary: str,
    cover_map: CoverMap | None = None,
    source: str = "",
) -> str:
    """Return a conversation as Markdown, with the scene's measurements and the model's summary.

    cover_map: the scene's land-cover map, with which answers are compared too. source: where the
    scene is from, and its licence.

    Raises ValueError if there are no messages.
    """
    if not messages:
        raise ValueError(NO_CONVERSATION)
    lines = [f"# {_plain(scene.name)}", "", _plain(scene.summary()), ""]
    question = ""
    for message in messages:
        is_question = message["role"] == "user"
        lines += [f"**{'You' if is_question else 'Model'}**", "", _quote(message["content"]), ""]
        if is_question:
            question = message["content"]
            continue
        differing = find_disagreements(question, message["content"], measurements, cover_map)
        lines += [f"- {_plain(sentence)}" for sentence in differing] + [""] * bool(differing)
    lines += ["## Measured from the bands, without the model", ""]
    if measurements is None:
        lines += ["Nothing: the scene has no near-infrared band.", ""]
    else:
        lines += ["| cover | share |", "|---|---|"]
        lines += [f"| {cover} | {percent(share)} |" for cover, share in measurements.shares.items()]
        lines += ["", SOURCES, ""]
    if source:
        lines += ["## Source of the scene", "", _plain(source), ""]
    lines += ["## Model", "", _plain(model_summary), ""]
    lines += [f"- {_plain(note)}" for note in scene.notes]
    return "\n".join(lines).rstrip() + "\n"


def quote_last_answer(
    scene: Scene,
    messages: Sequence[Message],
    measurements: SpectralIndices | None,
    names: tuple[str, str, str],
    cover_map: CoverMap | None = None,
    source: str = "",
) -> str:
    """Return the last answer as plain text, with its question, scene, model and measurements.

    names: of the scene for people, of the encoder and of the language model. cover_map, source: as
    `conversation_to_markdown` takes them. Raises ValueError if there are no messages.
    """
    if not messages:
        raise ValueError(NO_CONVERSATION)
    question, answer = (" ".join(message["content"].split()) for message in messages[-2:])
    title, encoder, language = names
    file = "" if title == scene.name else f" ({scene.name})"
    lines = [
        f"“{answer}”",
        f"Answer of {language} with {encoder} to “{question}”, about the Sentinel-2 scene: "
        f"{title}{file}.",
    ]
    measured = select_measurements(f"{question} {answer}", measurements)
    if measured:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in measured)
        lines.append(f"Measured from the bands, without the model: {shares}.")
    lines += find_disagreements(question, answer, measurements, cover_map)
    if source:
        lines.append(f"Source of the scene: {source}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape text for one line of Markdown: no tag, link, picture, emphasis or formula."""
    line = _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
    return _LINE_START.sub(r"\1\\\2", line)


def _quote(text: str) -> str:
    """Return text as a block quote that keeps its line breaks."""
    lines = [_plain(line) for line in text.splitlines()] or [""]
    ends = ["\\" if line and following else "" for line, following in pairwise([*lines, ""])]
    return "\n".join(f"> {line}{end}".rstrip() for line, end in zip(lines, ends, strict=True))
