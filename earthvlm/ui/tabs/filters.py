"""The Search tab's filters: fields for dates, source and bbox, and the SceneFilter they ask for."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from earthvlm.embeddings.filters import BoundingBox, SceneFilter, parse_bbox, parse_date
from earthvlm.scenes.formatting import describe_bbox, describe_date

ALL_SPLITS = "all"
BOX_LABEL = "BoundingBox: west, south, east, north in degrees"
BOX_EXAMPLE = "4, 47, 16, 55"
BOX_DECIMALS = 4  # about 10 m
MAX_SOURCE_CHARACTERS = 200


@dataclass(frozen=True)
class FilterFields:
    """The fields of a page, folded away; what stands in the box's is the bbox, typed or drawn."""

    first_date: gr.Textbox
    last_date: gr.Textbox
    source: gr.Textbox
    bbox: gr.Textbox
    apply: gr.Button
    clear: gr.Button

    @property
    def inputs(self) -> list[gr.Textbox]:
        """The fields in the order in which `read_filter` takes their values."""
        return [self.first_date, self.last_date, self.source, self.bbox]


def add_filters() -> FilterFields:
    """Add the fields to the page."""
    with gr.Accordion("Filters", open=False, elem_id="filters", elem_classes="settings"):
        with gr.Row():
            first, last = (
                gr.Textbox("", label=label, placeholder="2020-06-30", max_lines=1, min_width=130)
                for label in ("First date", "Last date")
            )
            source = gr.Textbox(
                "",
                label="Source contains",
                placeholder="any words of it",
                max_lines=1,
                min_width=200,
            )
            bbox = add_bbox_field()
        with gr.Row(elem_classes="after"):
            apply = gr.Button("Apply filters", size="sm", scale=0, min_width=130)
            clear = gr.Button("Clear filters", size="sm", scale=0, min_width=130)
    return FilterFields(first, last, source, bbox, apply, clear)


def add_bbox_field() -> gr.Textbox:
    """Add a field to type a box into, which shows one that was drawn."""
    return gr.Textbox("", label=BOX_LABEL, placeholder=BOX_EXAMPLE, max_lines=1, min_width=270)


def read_filter(
    first_date: str, last_date: str, source: str, bbox: str, split: str = ALL_SPLITS
) -> SceneFilter:
    """Return what the fields ask for; blank is any.

    Raises ValueError, in one sentence, for dates and a box that cannot be, and words too many.
    """
    if len(source) > MAX_SOURCE_CHARACTERS:
        raise ValueError(
            f"the source's words have {len(source)} characters; at most {MAX_SOURCE_CHARACTERS} "
            "are read"
        )
    return SceneFilter(
        split=None if split == ALL_SPLITS else split,
        bbox=parse_bbox(bbox) if bbox.strip() else None,
        first_date=parse_date(first_date) if first_date.strip() else None,
        last_date=parse_date(last_date) if last_date.strip() else None,
        source=source.strip() or None,
    )


def check_number(name: str, value: int, low: int, high: int) -> None:
    """Raise ValueError, in one sentence, for a number outside its range, both ends included."""
    if not low <= value <= high:
        raise ValueError(
            f"the argument {name} is a whole number from {low} to {high}; {value} came"
        )


def write_bbox(bbox: BoundingBox) -> str:
    """A box as its field takes it."""
    return ", ".join(f"{round(value, BOX_DECIMALS) + 0:.7g}" for value in bbox)  # no -0


def describe_filter(where: SceneFilter) -> str:
    """What follows "12 scenes nearest to ...": the dates, source and box it looked in."""
    parts = []
    if where.first_date is not None:
        parts.append(f"taken from {describe_date(where.first_date)} on")
    if where.last_date is not None:
        parts.append(f"taken until {describe_date(where.last_date)}")
    if where.source is not None:
        parts.append(f"of a source with “{where.source}”")
    if where.bbox is not None:
        parts.append(f"inside {describe_bbox(where.bbox)}")
    return "".join(f", {part}" for part in parts)
