"""What the page shows of a search: the summary, each result's text, and its thumbnail."""

from __future__ import annotations

import dataclasses
import datetime

import numpy as np
import pytest
from PIL import Image

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.search.index import SceneResult, SearchResults
from earthvlm.serving.service import Example
from earthvlm.ui.search_query import SORTS, SearchQuery
from earthvlm.ui.tabs.search.filters import read_filter
from earthvlm.ui.tabs.search.search_results import (
    Thumbnails,
    show_results,
    sort_results,
    summarize_search,
)

HTML = "<img src=x onerror=alert(1)>"
MINE = Example("mine", np.zeros(384, np.float32))
ANY = SceneFilter()


def make_result(caption: float | None = 0.4, scene: float | None = 0.5) -> SceneResult:
    cosines = {"caption_similarity": caption, "scene_similarity": scene}
    return SceneResult("a", "A lake.", "tiles", 12.5, 52.4, "made up", None, None, **cosines)


def test_summary_names_query_and_filters():
    where = read_filter("2020-01-31", "", "ESA", "4, 47, 16, 55")
    assert summarize_search(SearchQuery("a lake", (MINE,)), [make_result()] * 3, 9, where) == (
        "3 scenes closest to <strong>a lake</strong> and most similar to <strong>mine</strong>, "
        "taken on or after 31 January 2020, with “ESA” in the source, inside 4.00° E to 16.00° E, "
        "47.00° N to 55.00° N"
    )
    assert summarize_search(SearchQuery(), [make_result()] * 2, 9, ANY) == "2 of 9 scenes"
    assert summarize_search(SearchQuery("x"), [make_result()], 9, ANY).startswith("1 scene closest")


def test_summary_of_no_results_names_the_filters():
    assert summarize_search(SearchQuery("a lake"), [], 9, ANY) == "No scene matches"
    where = read_filter("2030-01-01", "", "", "")
    assert summarize_search(SearchQuery(), [], 9, where) == (
        "No scene matches the filters: taken on or after 1 January 2030"
    )


@pytest.mark.parametrize(("best", "is_far"), [(0.19, True), (0.21, False)])
def test_summary_says_when_no_result_is_close(best: float, is_far: bool):
    results = [make_result(0.1, best), make_result(None, 0.05)]
    summary = summarize_search(SearchQuery("pizza"), results, 9, ANY)
    assert ("None matches well" in summary) == is_far


def test_summary_shows_the_warning_of_its_search():
    assert "warning" not in summarize_search(
        SearchQuery("a lake"), SearchResults([make_result()]), 9, ANY
    )
    results = SearchResults([make_result()], f"Milvus at {HTML} is down")
    assert '<p class="warning">Milvus at &lt;img' in summarize_search(
        SearchQuery("a lake"), results, 9, ANY
    )


@pytest.mark.parametrize(
    ("query", "where"),
    [
        (SearchQuery(like=(Example(HTML, np.zeros(384, np.float32)),)), ANY),
        (SearchQuery(HTML, (MINE,)), ANY),
        (SearchQuery(), SceneFilter(source=HTML)),
    ],
)
def test_summary_escapes_html(query, where: SceneFilter):
    summary = summarize_search(query, [make_result()], 1, where)
    assert "&lt;img" in summary and "<img" not in summary


def test_card_tells_match_place_date_and_folds_the_numbers():
    result = dataclasses.replace(
        make_result(0.4, None),
        caption=HTML,
        match=0.637,
        caption_rank=3,
        date=datetime.date(2020, 2, 2),
        thumbnail=Image.new("RGB", (8, 8)),
    )
    card = show_results([result], 0, Thumbnails(), {"a": False})
    plain, numbers = card.split("<details>")
    assert "<b>64 % match</b> · 2 February 2020" in plain
    assert "<h3>Near Brandenburg an der Havel, Germany</h3>" in plain
    assert "cosine" not in plain and "tiles" not in plain
    assert "cosine 0.40, rank 3" in numbers and "52.400° N 12.500° E" in numbers
    assert plain.count('aria-pressed="true"') == 1 and "<img src=x" not in card
    assert 'src="data:image/webp;base64,' in plain


def test_page_of_results_has_buttons_to_the_others():
    assert "Previous" not in show_results([make_result()] * 12, 0, Thumbnails(), {})
    last = show_results([make_result()] * 13, 1, Thumbnails(), {})
    assert "13 to 13 of 13" in last and 'data-page="2" disabled' in last


def test_results_are_sorted_by_match_date_and_place():
    days = [None, datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)]
    places = [(13.0, 55.6), (None, None), (-8.6, 41.1)]
    results = [
        dataclasses.replace(
            make_result(), image_id=str(i), date=day, longitude=x, latitude=y, match=0.1 * i
        )
        for i, (day, (x, y)) in enumerate(zip(days, places, strict=True))
    ]

    def order(by: str) -> str:
        return "".join(each.image_id for each in sort_results(results, by))

    assert [order(by) for by in SORTS] == ["210", "210", "120", "021"]
