"""The search options: typed filters, bounding boxes, and options as arguments of a handler."""

from __future__ import annotations

import datetime
import inspect

import gradio as gr
import pytest

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.ui.tabs.search.filters import (
    SearchOptions,
    check_number,
    describe_filter,
    format_bbox,
    read_filter,
    takes_options,
)


def test_filter_is_read_from_texts():
    typed = read_filter("2020-01-31", " 2021-02-01 ", " Copernicus ", "170, -20, -170.5, 0", "val")
    dates = datetime.date(2020, 1, 31), datetime.date(2021, 2, 1)
    assert typed == SceneFilter("val", (170, -20, -170.5, 0), *dates, "Copernicus")
    assert read_filter("", "", " ", "", "all") == SearchOptions().read_filter() == SceneFilter()
    with pytest.raises(ValueError, match="swap them"):
        read_filter("2020-02-02", "2020-02-01", "", "")
    with pytest.raises(ValueError, match="201 characters; at most 200"):
        read_filter("", "", "x" * 201, "")


def test_drawn_box_is_formatted_for_its_field():
    text = format_bbox((-123.456789, -0.00001, 3.000049, 40.5))
    assert text == "-123.4568, 0, 3, 40.5"
    assert read_filter("", "", "", text).bbox == (-123.4568, 0, 3, 40.5)


def test_filter_is_described():
    where = read_filter("2020-01-31", "2021-02-01", "ESA", "4, 47, 16, 55")
    assert describe_filter(where) == [
        "taken on or after 31 January 2020",
        "taken on or before 1 February 2021",
        "with “ESA” in the source",
        "inside 4.00° E to 16.00° E, 47.00° N to 55.00° N",
    ]
    assert describe_filter(SceneFilter()) == []


def test_number_outside_its_range_is_rejected():
    check_number("count", 50, 1, 50)
    with pytest.raises(ValueError, match="count is a whole number from 1 to 50; 51 was given"):
        check_number("count", 51, 1, 50)


def test_options_are_separate_arguments_for_gradio():
    class Handlers:
        @takes_options
        def search(self, words: str, options: SearchOptions, request: gr.Request) -> object:
            return words, options, request

    search = Handlers().search
    names = ["words", "split", "count", "first_date", "last_date", "source", "bbox", "near"]
    names.append("request")
    assert list(inspect.signature(search).parameters) == names
    assert gr.utils.get_type_hints(search)["request"] is gr.Request
    options = ("val", 8, "2020-01-31", "", "", "4, 47, 16, 55", "")
    assert search("a lake", *options, "me") == ("a lake", SearchOptions(*options), "me")
