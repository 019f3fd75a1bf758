"""The search options of the page: their fields, and the SceneFilter that they describe."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import BoundingBox, SceneFilter, parse_bbox, parse_date
from earthvlm.scenes.places.formatting import describe_bbox, describe_date
from earthvlm.scenes.places.gazetteer import Place, find_place

ALL_SPLITS = "all"
# What the usual splits of a dataset are called for people.
GROUPS = {
    ALL_SPLITS: "all scenes",
    "examples": "scenes picked as examples",
    "tiles": "tiles cut from larger scenes",
    "train": "training scenes",
    "val": "validation scenes",
    "test": "test scenes",
    "cloudy": "cloudy scenes",
}
MIN_RESULTS, MAX_RESULTS, DEFAULT_RESULTS = 4, 96, 48
NEAR_KM = 100.0  # scenes up to here are near a town
NEAR_LABEL = "Near a town or city"
BBOX_LABEL = "Area: west, south, east, north in degrees"
BBOX_EXAMPLE = "4, 47, 16, 55"
BBOX_DECIMALS = 4  # about 10 m
MAX_SOURCE_CHARACTERS = 200


@dataclass(frozen=True)
class SearchOptions:
    """What a visitor chose in the fields of `OptionFields`, in their order."""

    split: str = ALL_SPLITS
    count: float = DEFAULT_RESULTS
    first_date: str = ""
    last_date: str = ""
    source: str = ""
    bbox: str = ""
    near: str = ""

    def read_place(self) -> Place | None:
        """Return the town that results should lie near. Raises ValueError for an unknown one."""
        return find_place(self.near) if self.near.strip() else None

    def read_filter(self) -> SceneFilter:
        """Return the filter that the options describe. Raises what `read_filter` does."""
        return read_filter(
            self.first_date, self.last_date, self.source, self.bbox, self.split, self.read_place()
        )


@dataclass(frozen=True)
class OptionFields:
    """The components of the search options."""

    split: gr.Dropdown
    count: gr.Slider
    first_date: gr.Textbox
    last_date: gr.Textbox
    source: gr.Textbox
    bbox: gr.Textbox
    near: gr.Textbox
    apply: gr.Button
    clear: gr.Button

    @property
    def texts(self) -> list[gr.components.Component]:
        """The filters that are typed."""
        return [self.first_date, self.last_date, self.source, self.bbox, self.near]

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components that hold the fields of SearchOptions, in their order."""
        return [self.split, self.count, *self.texts]


def takes_options(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Let Gradio call a handler with each field of its parameter `options: SearchOptions`.

    Gradio passes the values of components one by one, and its API names each of them.
    """
    names = [field.name for field in fields(SearchOptions)]
    parameters = list(inspect.signature(handler).parameters.values())
    start = [parameter.name for parameter in parameters].index("options")
    end = start + len(names)

    @functools.wraps(handler)
    def call(*arguments: Any) -> Any:
        options = SearchOptions(*arguments[start:end])
        return handler(*arguments[:start], options, *arguments[end:])

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    flat = [
        inspect.Parameter(field.name, kind, annotation=field.type)
        for field in fields(SearchOptions)
    ]
    flat = [*parameters[:start], *flat, *parameters[start + 1 :]]
    call.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return call


def build_options(splits: Sequence[str], near: gr.Textbox) -> OptionFields:
    """Lay out the fields of the search options. near: the field that stands next to the words."""
    with gr.Accordion("More filters", open=False, elem_id="filters", elem_classes="settings"):
        with gr.Row():
            first_date, last_date = (
                gr.Textbox("", label=label, placeholder="2020-06-30", max_lines=1, min_width=130)
                for label in ("Taken from", "Taken until")
            )
            bbox = build_bbox_field()
        with gr.Row():
            split = gr.Dropdown(
                [(name_group(each), each) for each in (ALL_SPLITS, *splits)],
                value=ALL_SPLITS,
                label="Group of scenes",
                min_width=200,
                elem_id="split",
            )
            source = gr.Textbox(
                "",
                label="Words in the name of the source",
                placeholder="such as Copernicus",
                max_lines=1,
                min_width=200,
            )
            count = gr.Slider(
                MIN_RESULTS,
                MAX_RESULTS,
                value=DEFAULT_RESULTS,
                step=4,
                label="Scenes to find at most",
                min_width=200,
                elem_id="count",
            )
        with gr.Row(elem_classes="after"):
            apply = gr.Button("Apply filters", size="sm", scale=0, min_width=130)
            clear = gr.Button("Clear filters", size="sm", scale=0, min_width=130)
    return OptionFields(split, count, first_date, last_date, source, bbox, near, apply, clear)


def name_group(split: str) -> str:
    """Return what a split of the dataset is called for people."""
    return GROUPS.get(split, f"“{split}”")


def build_near_field() -> gr.Textbox:
    """Add a field for the name of a town."""
    return gr.Textbox("", label=NEAR_LABEL, placeholder="Porto", max_lines=1, min_width=180)


def build_bbox_field() -> gr.Textbox:
    """Add a field for a bounding box, which also shows one that was drawn on the map."""
    return gr.Textbox("", label=BBOX_LABEL, placeholder=BBOX_EXAMPLE, max_lines=1, min_width=270)


def read_filter(
    first_date: str,
    last_date: str,
    source: str,
    bbox: str,
    split: str = ALL_SPLITS,
    near: Place | None = None,
) -> SceneFilter:
    """Return the filter that these texts describe; an empty text filters nothing.

    near: the town that scenes lie near, up to NEAR_KM; its box is the filter's. Raises ValueError
    for an invalid date or bounding box, for a source that is too long, and for a town and a box.
    """
    if near is not None and bbox.strip():
        raise ValueError("choose a town or an area, not both; empty one of the two fields")
    if len(source) > MAX_SOURCE_CHARACTERS:
        raise ValueError(
            f"the source to look for has {len(source)} characters; at most "
            f"{MAX_SOURCE_CHARACTERS} are accepted"
        )
    return SceneFilter(
        split=None if split == ALL_SPLITS else split,
        bbox=near.bbox(NEAR_KM) if near else parse_bbox(bbox) if bbox.strip() else None,
        first_date=parse_date(first_date) if first_date.strip() else None,
        last_date=parse_date(last_date) if last_date.strip() else None,
        source=source.strip() or None,
    )


def check_number(name: str, value: int, low: int, high: int) -> None:
    """Raise ValueError for a number outside its range, both ends included."""
    if not low <= value <= high:
        raise ValueError(
            f"the argument {name} is a whole number from {low} to {high}; {value} was given"
        )


def format_bbox(bbox: BoundingBox) -> str:
    """Return a bounding box as its field accepts it."""
    return ", ".join(f"{round(value, BBOX_DECIMALS) + 0:.7g}" for value in bbox)  # + 0: no -0


def describe_filter(where: SceneFilter, near: Place | None = None) -> list[str]:
    """Return phrases for dates, source, and place or bounding box, to follow "12 scenes"."""
    phrases = []
    if where.first_date is not None:
        phrases.append(f"taken on or after {describe_date(where.first_date)}")
    if where.last_date is not None:
        phrases.append(f"taken on or before {describe_date(where.last_date)}")
    if where.source is not None:
        phrases.append(f"with “{where.source}” in the source")
    if near is not None:
        phrases.append(f"within {NEAR_KM:.0f} km of {near.title}")
    elif where.bbox is not None:
        phrases.append(f"inside {describe_bbox(where.bbox)}")
    return phrases
