"""The Search tab's filters: fields for dates, source and box, and the SceneFilter they ask for."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.search_query import Box, SceneFilter

DATE_FORM = "2020-01-31"
BOX_DECIMALS = 4  # about 10 m: what a drawn box is rounded to, so that its fields say all of it


@dataclass(frozen=True)
class FilterFields:
    """The fields of a page. What stands in the box's is the box, whether typed or drawn."""

    first_date: gr.Textbox
    last_date: gr.Textbox
    source: gr.Textbox
    box: tuple[gr.Number, ...]
    apply: gr.Button
    clear: gr.Button

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The fields in the order in which `read_filter` takes their values."""
        return [self.first_date, self.last_date, self.source, *self.box]


def add_filters() -> FilterFields:
    """Add the fields to the page, folded away until somebody wants them."""
    with gr.Accordion("Filters", open=False, elem_id="filters"):
        with gr.Row():
            first, last = (
                gr.Textbox("", label=label, placeholder=DATE_FORM, max_lines=1, min_width=130)
                for label in ("First date", "Last date")
            )
            source = gr.Textbox(
                "",
                label="Source contains",
                placeholder="words, in any case",
                max_lines=1,
                scale=2,
                min_width=200,
            )
        with gr.Row():
            box = tuple(
                gr.Number(None, label=f"{side}, degrees", step=0.1, min_width=110)
                for side in ("West", "South", "East", "North")
            )
        with gr.Row():
            apply = gr.Button("Apply filters", size="sm", scale=0, min_width=130)
            clear = gr.Button("Clear filters", size="sm", scale=0, min_width=130)
    return FilterFields(first, last, source, box, apply, clear)


def read_filter(
    first_date: str, last_date: str, source: str, box: tuple[float | None, ...]
) -> SceneFilter:
    """Return what the fields ask for. Raises ValueError for a date or a box that is none."""
    return SceneFilter(
        box=_read_box(box),
        first_date=_read_date(first_date, "first"),
        last_date=_read_date(last_date, "last"),
        source=source.strip() or None,
    )


def round_box(box: Box) -> Box:
    """A drawn box as its fields show it."""
    return tuple(round(value, BOX_DECIMALS) for value in box)


def show_box(box: Box | None) -> list[Any]:
    """The values of the box's fields."""
    return [None] * 4 if box is None else list(box)


def describe_filter(where: SceneFilter) -> str:
    """What goes behind "12 scenes nearest to ...": the dates, source and box looked in."""
    parts = []
    if where.first_date is not None:
        parts.append(f"from {where.first_date} on")
    if where.last_date is not None:
        parts.append(f"until {where.last_date}")
    if where.source is not None:
        parts.append(f"of sources with “{where.source}”")
    if where.box is not None:
        parts.append("inside the box on the map")
    return "".join(f", {part}" for part in parts)


def _read_date(text: str, which: str) -> datetime.date | None:
    text = text.strip()
    if not text:
        return None
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise ValueError(
            f"the {which} date is year-month-day, as in {DATE_FORM}; {text[:40]!r} was given"
        ) from None


def _read_box(box: tuple[float | None, ...]) -> Box | None:
    given = [value for value in box if value is not None]
    if not given:
        return None
    if len(given) < 4:
        raise ValueError(
            "a box needs all of west, south, east and north, in degrees; fill in what is missing, "
            "or clear the filters"
        )
    return tuple(given)
