"""The Compare tab: two dates of one place, each described by the model, their change measured."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.scenes.bands import COMPOSITES
from earthvlm.scenes.change_detection import (
    WATER_CHANGE_COLOURS,
    compare,
    draw_water_change,
    in_order_of_date,
    lie_apart,
    warn_before_comparing,
)
from earthvlm.scenes.formatting import describe_date
from earthvlm.scenes.spectral_indices import percent
from earthvlm.serving.service import OpenScene, SceneService, Waiting
from earthvlm.ui.examples import ABOUT_PAIR, open_pair
from earthvlm.ui.scene_html import VIEWER_SCRIPT, show_picture, show_related_shares, show_viewer
from earthvlm.ui.session import Session, identify_client, limit_memory, page_only
from earthvlm.ui.tabs.streaming import accumulate_text, describe_wait
from earthvlm.ui.uploads import SCENE_FILES, open_uploads, take_uploads_only

EXPLAINED = (
    "The model learned from single scenes, so it describes each on its own. What changed between "
    "them is measured from the bands."
)
NO_PAIR = "Two scenes are needed: open two, or one beside the scene in Chat"


def add_compare_tab(session: gr.State, service: SceneService) -> None:
    """Add the tab's components and wire them."""
    gr.HTML(f"<p>{EXPLAINED}</p>", elem_id="explained")
    with gr.Row(elem_classes="search-by"):
        both = gr.UploadButton(
            "Open two scenes …",
            file_count="multiple",
            file_types=SCENE_FILES,
            variant="primary",
            scale=0,
            min_width=170,
            elem_id="open-two",
        )
        beside = gr.UploadButton(
            "Put one beside the scene in Chat …",
            file_types=SCENE_FILES,
            scale=0,
            min_width=320,
            elem_id="open-beside",
        )
        for button in (both, beside):
            take_uploads_only(button)
        composite = gr.Radio(
            list(COMPOSITES), value="true colour", label="Bands shown", elem_classes="pills"
        )
    example = open_pair(service)
    if example:
        with gr.Row(elem_classes="try-pair"):
            try_pair = gr.Button("Try two that are here", size="sm", scale=0, min_width=190)
            gr.HTML(f"<p>{ABOUT_PAIR}</p>")
    with gr.Row(elem_classes="pair"):
        with gr.Column(min_width=300):
            first = gr.HTML(_empty("Earlier scene"), js_on_load=VIEWER_SCRIPT, elem_id="first")
            said_of_first = gr.HTML(
                elem_id="said-of-first",
                elem_classes="said",
                label="What the model says of the first",
            )
        with gr.Column(min_width=300):
            second = gr.HTML(_empty("Later scene"), js_on_load=VIEWER_SCRIPT, elem_id="second")
            said_of_second = gr.HTML(
                elem_id="said-of-second",
                elem_classes="said",
                label="What the model says of the second",
            )
    describe = gr.Button("Let the model describe each", scale=0, elem_id="describe-both")
    changes = gr.HTML(label="What changed, measured", elem_id="changes")

    def show_pair(session: Session, scenes: list[OpenScene], name: str) -> Any:
        ordered = in_order_of_date([opened.scene for opened in scenes])
        session.pair = sorted(scenes, key=lambda opened: ordered.index(opened.scene))
        limit_memory(session)
        if not session.pair:
            raise ValueError("The two scenes are too large to be open at once here")
        return (session, *draw_both(session, name), "", "", show_changes(session.pair))

    def draw_both(session: Session, name: str) -> list[str]:
        headings = _head(session.pair)
        return [show_in_pair(*each, name) for each in zip(session.pair, headings, strict=True)]

    @page_only
    def compare_two(
        session: Session, paths: list[str] | None, name: str, request: gr.Request
    ) -> Any:
        """Open two uploaded scenes, put them in order of date, and measure what changed."""
        client = identify_client(session, request)
        if not paths or len(paths) != 2:
            raise ValueError(NO_PAIR)
        with service.opening(client) as read:
            scenes = [service.open(open_uploads([path], read)) for path in paths]
            return show_pair(session, scenes, name)

    @page_only
    def compare_beside(session: Session, path: str | None, name: str, request: gr.Request) -> Any:
        """Open an uploaded scene beside the one in Chat, and measure what changed."""
        client = identify_client(session, request)
        opened = session.require_opened()
        with service.opening(client) as read:
            added = service.open(open_uploads([path] if path else None, read))
            return show_pair(session, [opened, added], name)

    @page_only
    def compare_examples(session: Session, name: str, request: gr.Request) -> Any:
        """Open the two scenes that are here to be compared, and measure how they differ."""
        with service.opening(identify_client(session, request)):
            return show_pair(session, example, name)

    @page_only
    def draw_pair(session: Session, name: str, request: gr.Request) -> Any:
        """Draw both scenes with other bands."""
        with service.opening(identify_client(session, request)):
            return draw_both(session, name) if session.pair else (gr.skip(), gr.skip())

    @page_only
    def describe_pair(session: Session, request: gr.Request) -> Iterator[tuple[str, str]]:
        """Let the model describe each of the two scenes, on its own."""
        if not session.pair:
            raise ValueError(NO_PAIR)
        client = identify_client(session, request)
        said = ["", ""]
        for number, opened in enumerate(session.pair):
            stop = session.begin_turn().stop
            asked = [{"role": "user", "content": DEFAULT_PROMPT}]
            said[number] = show_said("…")
            yield said[0], said[1]
            text = ""
            pieces = service.answer(opened.scene, asked, client, stop=stop)
            with closing(accumulate_text(pieces)) as reading:
                for told in reading:
                    if isinstance(told, Waiting):
                        said[number] = show_said(describe_wait(told.ahead))
                    else:
                        text, said[number] = told, show_said(told)
                    yield said[0], said[1]
            said[number] += show_related_shares(opened, text)
            yield said[0], said[1]

    shown = [session, first, second, said_of_first, said_of_second, changes]
    opening = {"concurrency_limit": None}
    both.upload(compare_two, [session, both, composite], shown, api_name="compare_two", **opening)
    beside.upload(
        compare_beside, [session, beside, composite], shown, api_name="compare_beside", **opening
    )
    if example:
        try_pair.click(
            compare_examples, [session, composite], shown, api_name="compare_examples", **opening
        )
    composite.input(
        draw_pair, [session, composite], [first, second], api_name="draw_pair", **opening
    )
    describe.click(
        describe_pair,
        session,
        [said_of_first, said_of_second],
        api_name="describe_pair",
        concurrency_limit=None,
        show_progress="hidden",
    )


def show_in_pair(opened: OpenScene, heading: str, composite: str) -> str:
    """HTML of one of the two scenes, under its heading, with bands it has."""
    available = opened.scene.available_composites()
    name = composite if composite in available else next(iter(available), None)
    return f"<h2>{heading}</h2>{show_viewer(opened, name)}"


def show_said(text: str) -> str:
    """HTML of what the model said of one of the two, marked as its words."""
    return f'<p><span class="mark model">model</span> {html.escape(text)}</p>'


def show_changes(pair: list[OpenScene]) -> str:
    """HTML: how each cover's share changed, where water came and went, and what to doubt."""
    before, after = pair
    notes = warn_before_comparing(before.scene, after.scene)
    doubts = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    text = f'<ul class="notes">{doubts}</ul>' if doubts else ""
    if before.measurements is None or after.measurements is None:
        return text + "<p>Without near infrared in both, no change can be measured.</p>"
    rows = "".join(
        f'<tr><th scope="row">{change.cover.capitalize()}</th><td>{percent(change.before)}</td>'
        f"<td>{percent(change.after)}</td><td>{_points(change.difference)}</td></tr>"
        for change in compare(before.measurements, after.measurements)
    )
    title = "How they differ" if lie_apart(before.scene, after.scene) else "What changed"
    first, second = _head(pair)
    table = (
        f'<h2>{title} <span class="mark">measured</span></h2>'
        '<div class="scroll"><table><thead>'
        f'<tr><th scope="col">Cover</th><th scope="col">{first}</th>'
        f'<th scope="col">{second}</th><th scope="col">Points</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    picture = draw_water_change(before.scene, after.scene)
    drawn = ""
    if picture is not None:
        legend = "".join(
            f'<span><i style="background: rgb{colour}"></i>{name}</span>'
            for name, colour in WATER_CHANGE_COLOURS.items()
        )
        alt = "Where water was gained and lost, over the later scene in grey"
        drawn = f'<figure>{show_picture(picture, alt)}<figcaption class="key">{legend}</figcaption>'
        drawn += "</figure>"
    return f'<div class="changed"><div>{table}{text}</div>{drawn}</div>'


def _points(difference: float) -> str:
    difference = round(difference, 1)
    sign = "+" if difference > 0 else "−" if difference < 0 else ""
    return f"{sign}{abs(difference):.1f}"


def _head(pair: list[OpenScene]) -> list[str]:
    """HTML that tells the two apart: their dates where these do, else their names."""
    scenes = [opened.scene for opened in pair]
    dates = [describe_date(scene.date) if scene.date else scene.name for scene in scenes]
    texts = dates if len(set(dates)) == 2 else [scene.name for scene in scenes]
    return [html.escape(text) for text in texts]


def _empty(title: str) -> str:
    return (
        f'<h2>{title}</h2><div class="viewport empty">A GeoTIFF of the same place goes here</div>'
    )
