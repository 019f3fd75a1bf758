"""Exports: conversations as Markdown without markup, results as CSV and GeoJSON."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace

import pytest

from earthvlm.scenes.spectral_indices import SOURCES, measure
from earthvlm.search.index import SceneResult
from earthvlm.serving.exports import conversation_to_markdown, results_to_csv, results_to_geojson
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


def make_result(name: str, caption: str, longitude: float | None = 10.5) -> SceneResult:
    latitude = None if longitude is None else 50.25
    return SceneResult(name, caption, "tiles", longitude, latitude, "made up", None, None)


def test_results_as_csv_and_geojson():
    results = [make_result("a", '=HYPERLINK("x")'), make_result("b", "two\nlines", None)]
    rows = list(csv.DictReader(io.StringIO(results_to_csv(results))))
    assert [row["image_id"] for row in rows] == ["a", "b"]
    assert rows[0]["caption"].startswith("'=") and rows[1]["caption"] == "two\nlines"
    features = json.loads(results_to_geojson(results))["features"]
    assert features[0]["geometry"] == {"type": "Point", "coordinates": [10.5, 50.25]}
    assert features[1]["geometry"] is None and features[1]["properties"]["rank"] == 2
    for export in (results_to_csv, results_to_geojson):
        with pytest.raises(ValueError, match="no results"):
            export([])
