"""Exports: conversations as Markdown without markup."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest

from earthvlm.scenes.analysis.spectral_indices import SOURCES, measure
from earthvlm.serving.exports import conversation_to_markdown, quote_last_answer
from tests.conftest import random_scene
from tests.support.made_spectra import paint

MARKUP = (
    "[link](http://x) ![picture](http://x/y.png) <b>tag</b> <https://auto> https://bare "
    "www.bare.org &lt;entity&gt; `code` **bold** _slant_ ~~gone~~ $x$ | table | me@example.org\n"
    "# heading\n- list\n1. list\n---\n===\n> quote\n    code\n\n[a]: http://x"
)


def test_markdown_export_escapes_markup():
    scene = replace(random_scene(), name=f"lake\n# {MARKUP}")
    messages = [{"role": "user", "content": MARKUP}, {"role": "assistant", "content": MARKUP}]
    text = conversation_to_markdown(scene, messages, measure(scene), f"a bridge\n{MARKUP}")
    assert "| water |" in text and "a bridge" in text
    assert not re.search(r"(?<!\\)://|www\.", text.replace(SOURCES, ""))  # GitHub links these
    with pytest.raises(ValueError, match="no conversation"):
        conversation_to_markdown(scene, [], None, "")

    markdown = pytest.importorskip("markdown_it", reason="reading Markdown needs markdown-it-py")
    rendered = markdown.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    for element in ("a", "img", "b", "code", "em", "ul", "ol", "hr", "del", "pre"):
        assert not re.search(rf"<{element}[ >]", rendered), element
    quotes = re.findall("<blockquote>(.*?)</blockquote>", rendered, re.DOTALL)
    lines = [line.strip() for line in MARKUP.splitlines()]
    for quote in quotes:
        words = html.unescape(re.sub(r"</?p>|<br />", "", quote))
        assert [line for line in words.split("\n") if line] == [line for line in lines if line]
    assert len(quotes) == 2


def test_markdown_export_without_near_infrared():
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "A lake."}]
    assert "no near-infrared band" in conversation_to_markdown(random_scene(), messages, None, "")


def test_markdown_export_says_where_answers_depart():
    scene = paint("water", "dense vegetation")
    messages = [
        {"role": "user", "content": "Is there water?"},
        {"role": "assistant", "content": "No, there is no water in view."},
        {"role": "user", "content": "Are there clouds?"},
        {"role": "assistant", "content": "No, there are no clouds in view."},
    ]
    text = conversation_to_markdown(scene, messages, measure(scene), "")
    assert text.count("The model says") == 1 and "- The model says no water" in text


def test_quotation_names_question_scene_model_and_source():
    scene = replace(paint("water", "dense vegetation"), name="pond")
    messages = [
        {"role": "user", "content": "Which land cover dominates?"},
        {"role": "assistant", "content": "Tree cover."},
        {"role": "user", "content": "Is there water?"},
        {"role": "assistant", "content": "No, there is no\nwater in view."},
    ]
    names = ("Near Malmö, Sweden", "an encoder", "a language model")
    source = "Made for this test, CC0-1.0."
    text = quote_last_answer(scene, messages, measure(scene), names, source=source)
    answer, origin, measured, differing, last = text.split("\n")
    assert answer == "“No, there is no water in view.”"
    assert origin == (
        "Answer of a language model with an encoder to “Is there water?”, about the Sentinel-2 "
        "scene: Near Malmö, Sweden (pond)."
    )
    assert "water 50" in measured and "The model says no water" in differing
    assert last == f"Source of the scene: {source}"
    assert f"## Source of the scene\n\n{source}" in conversation_to_markdown(
        scene, messages, None, "", source=source
    ).replace("\\", "")
    with pytest.raises(ValueError, match="no conversation"):
        quote_last_answer(scene, [], None, names)
