"""Exports: a conversation as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from earthvlm.models.language.chat_templates import Message
from earthvlm.scenes.analysis.spectral_indices import SOURCES, SpectralIndices, percent
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.scene import Scene
from earthvlm.serving.agreement import find_disagreements

# Characters that Markdown, including GitHub's dialect, may read as markup: anywhere, and at the
# start of a line, where they begin a list, a rule or an underlined heading.
_MARKUP = re.compile(r"[\\`*_\[\]<>#|&~$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LINE_START = re.compile(r"^(\d*)([-+=.)])")


def conversation_to_markdown(
    scene: Scene,
    messages: Sequence[Message],
    measurements: SpectralIndices | None,
    model_summary: str,
    cover_map: CoverMap | None = None,
) -> str:
    """Return a conversation as Markdown, with the scene's measurements and the model's summary.

    cover_map: the scene's land-cover map, with which answers are compared too.

    Raises ValueError if there are no messages.
    """
    if not messages:
        raise ValueError("There is no conversation yet: ask something about the scene first.")
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
    lines += ["## Model", "", _plain(model_summary), ""]
    lines += [f"- {_plain(note)}" for note in scene.notes]
    return "\n".join(lines).rstrip() + "\n"


def _plain(text: str) -> str:
    """Escape text for one line of Markdown: no tag, link, picture, emphasis or formula."""
    line = _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
    return _LINE_START.sub(r"\1\\\2", line)


def _quote(text: str) -> str:
    """Return text as a block quote that keeps its line breaks."""
    lines = [_plain(line) for line in text.splitlines()] or [""]
    ends = ["\\" if line and following else "" for line, following in pairwise([*lines, ""])]
    return "\n".join(f"> {line}{end}".rstrip() for line, end in zip(lines, ends, strict=True))
