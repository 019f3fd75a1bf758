"""The page: a header, the two tabs, and a line that says who answers and where its limits are."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.generation import DEFAULT_PROMPT
from earthvlm.retrieval import SceneIndex
from earthvlm.scene import Scene
from earthvlm.ui.chat import add_chat_tab, choose_examples
from earthvlm.ui.search import add_search_tab
from earthvlm.ui.state import add_session

TITLE = "earthvlm"
PURPOSE = "Ask questions about a Sentinel-2 scene, and search among scenes by words or by example."
ATTRIBUTION = (
    "Contains modified Copernicus Sentinel data; each scene names its source. "
    "Code and OlmoEarth's architecture: Apache-2.0."
)
QUEUE_SIZE = 32
CACHE_SECONDS = (3600, 6 * 3600)  # how often pictures and uploads are deleted, and at what age
SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]

THEME = gr.themes.Base(
    primary_hue="emerald",
    secondary_hue="emerald",
    neutral_hue="stone",
    radius_size="md",
    font=SYSTEM_FONTS,
    font_mono=["ui-monospace", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
    button_primary_text_color="white",
    button_large_text_size="*text_md",
    button_large_text_weight="500",
    button_large_padding="8px 14px",
    block_background_fill="transparent",
    block_background_fill_dark="transparent",
    block_border_width="0px",
    block_padding="0px",
    block_info_text_color="*body_text_color_subdued",
    block_label_text_color="*body_text_color_subdued",
    block_title_text_color="*body_text_color_subdued",
    block_title_text_size="*text_sm",
    input_background_fill="white",
    input_background_fill_dark="*neutral_800",
    input_border_width="1px",
    form_gap_width="0px",
)

# For `launch()`, where Gradio 6 takes a page's looks.
LAUNCH_OPTIONS: dict[str, Any] = {
    "theme": THEME,
    "css_paths": Path(__file__).with_name("style.css"),
    "max_file_size": "64mb",
    "footer_links": ["api"],
    "ssr_mode": False,
}


def build_app(bridge: OlmoEarthVLMBridge, index: SceneIndex) -> gr.Blocks:
    """Build the page around a bridge that answers and an index that finds; launch it yourself.

    Launch it with `LAUNCH_OPTIONS`. Each visitor has a session of their own, and the model works
    on one request at a time while the others wait in a queue.
    """
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=CACHE_SECONDS
    ) as page:
        session = add_session()
        gr.HTML(f"<h1>{TITLE}</h1><p>{PURPOSE}</p>", elem_id="header")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Chat", id="chat"):
                chat = add_chat_tab(page, session, bridge, choose_examples(index))
            with gr.Tab("Search", id="search"):
                add_search_tab(page, session, bridge, index, tabs, chat)
        gr.HTML(describe_bridge(bridge), elem_id="about")
    return page.queue(max_size=QUEUE_SIZE)


def warm_up(bridge: OlmoEarthVLMBridge, index: SceneIndex) -> None:
    """Answer and embed once, so that the first visitor does not wait for lazy parts to load."""
    for example in choose_examples(index)[:1]:
        scene = Scene.open(example.scene_file)
        bridge.generate(scene, DEFAULT_PROMPT, max_length=1)
        bridge.embed([scene])


def describe_bridge(bridge: OlmoEarthVLMBridge) -> str:
    """Return HTML that says which model answers, where its limits are, and whom to thank."""
    return (
        f"<p><strong>Who answers:</strong> {html.escape(bridge.summary)}</p>"
        f"<p><strong>Limits:</strong> {html.escape(bridge.limits)}</p>"
        f"<p>{ATTRIBUTION}</p>"
    )
