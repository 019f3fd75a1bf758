"""What the page shows of a search: the summary, each result's text, and its thumbnail."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.search.index import SceneResult, SearchResults
from earthvlm.serving.service import Example
from earthvlm.ui.tabs.search.filters import read_filter
from earthvlm.ui.tabs.search.search_results import ThumbnailFiles, describe_result, summarize_search

HTML = "<img src=x onerror=alert(1)>"
MINE = Example("mine", np.zeros(384, np.float32))
ANY = SceneFilter()


def make_result(caption: float | None = 0.4, scene: float | None = 0.5) -> SceneResult:
    cosines = {"caption_similarity": caption, "scene_similarity": scene}
    return SceneResult("a", "A lake.", "tiles", 12.5, 52.4, "made up", None, None, **cosines)


def test_summary_names_query_and_filters():
    where = read_filter("2020-01-31", "", "ESA", "4, 47, 16, 55")
    assert summarize_search(("a lake", MINE), [make_result()] * 3, 9, where) == (
        "3 scenes closest to <strong>a lake</strong> and most similar to <strong>mine</strong>, "
        "taken on or after 31 January 2020, with “ESA” in the source, inside 4.00° E to 16.00° E, "
        "47.00° N to 55.00° N"
    )
    assert summarize_search(None, [make_result()] * 2, 9, ANY) == "2 of 9 scenes"
    assert summarize_search("x", [make_result()], 9, ANY).startswith("1 scene closest")


def test_summary_of_no_results_names_the_filters():
    assert summarize_search("a lake", [], 9, ANY) == "No scene matches"
    where = read_filter("2030-01-01", "", "", "")
    assert summarize_search(None, [], 9, where) == (
        "No scene matches the filters: taken on or after 1 January 2030"
    )


@pytest.mark.parametrize(("best", "is_far"), [(0.19, True), (0.21, False)])
def test_summary_says_when_no_result_is_close(best: float, is_far: bool):
    results = [make_result(0.1, best), make_result(None, 0.05)]
    summary = summarize_search("pizza", results, 9, ANY)
    assert ("None matches well: the best cosine similarity is 0.19" in summary) == is_far


def test_summary_shows_the_warning_of_its_search():
    assert "warning" not in summarize_search("a lake", SearchResults([make_result()]), 9, ANY)
    results = SearchResults([make_result()], f"Milvus at {HTML} is down")
    assert '<p class="warning">Milvus at &lt;img' in summarize_search("a lake", results, 9, ANY)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        (Example(HTML, np.zeros(384, np.float32)), ANY),
        ((HTML, MINE), ANY),
        (None, SceneFilter(source=HTML)),
    ],
)
def test_summary_escapes_html(query, where: SceneFilter):
    summary = summarize_search(query, [make_result()], 1, where)
    assert "&lt;img" in summary and "<img" not in summary


def test_result_text_has_similarities_ranks_and_place():
    result = dataclasses.replace(make_result(0.4, None), caption_rank=3)
    assert describe_result(result) == "caption 0.40 (rank 3)\n52.40° N 12.50° E · tiles\nA lake."


def test_thumbnail_is_written_once():
    files = ThumbnailFiles()
    assert files.path(make_result()) is None
    result = dataclasses.replace(make_result(), thumbnail=Image.new("RGB", (8, 8)))
    path = Path(files.path(result))
    written = path.stat().st_mtime_ns
    assert files.items([result]) == [(str(path), describe_result(result))]
    assert path.stat().st_mtime_ns == written and Image.open(path).size == (8, 8)
