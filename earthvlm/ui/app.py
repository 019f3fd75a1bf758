"""The page: a header, the tabs, and a footer that names the model and its limits."""

from __future__ import annotations

import html
import logging
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.serving.owner_limits import read_upload_mb
from earthvlm.serving.service import SceneService
from earthvlm.ui.models import Models
from earthvlm.ui.security.checked_page import CheckedPage
from earthvlm.ui.session import add_session
from earthvlm.ui.tabs.chat.chat_tab import build_chat_tab, wire_chat_tab
from earthvlm.ui.tabs.compare.compare_tab import build_compare_tab, wire_compare_tab
from earthvlm.ui.tabs.map.map_tab import build_map_tab, wire_map_tab
from earthvlm.ui.tabs.search.search_handlers import SearchHandlers
from earthvlm.ui.tabs.search.search_tab import build_search_tab, wire_search_tab
from earthvlm.ui.tools.api import add_tools, hide_page_endpoints
from earthvlm.ui.zero_gpu import borrow_gpu

logger = logging.getLogger(__name__)

TITLE = "earthvlm"
PURPOSE = "Ask questions about a Sentinel-2 scene, and search among scenes by words or by example."
# page.js follows it.
SKIP_LINK = '<a class="skip" href="#prompt">Skip to the question</a>'
ATTRIBUTION = (
    "Contains modified Copernicus Sentinel data; each scene names its source. "
    "Code and OlmoEarth's architecture: Apache-2.0."
)
# Of Gradio. The queues of the service are shorter.
QUEUE_SIZE = 128
# Gradio keeps the state of the latest pages, 8 KB each at the start.
MAX_SESSIONS = 1000
CACHE_SECONDS = (3600, 6 * 3600)  # how often old files are deleted, and from which age
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
    button_primary_background_fill_hover_dark="*primary_800",
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
    block_title_text_color_dark="*body_text_color_subdued",
    block_title_text_size="*text_sm",
    input_background_fill="white",
    input_background_fill_dark="*neutral_800",
    input_border_width="1px",
    form_gap_width="0px",
)

FOLDER = Path(__file__).parent
SCRIPTS = ("page", "conversations", "notices", "drop")
STYLES = ("page", "scene", "chat", "compare", "search")

# For `launch()`, which in Gradio 6 takes theme and styles.
LAUNCH_OPTIONS: dict[str, Any] = {
    "theme": THEME,
    "css_paths": [FOLDER / "style" / f"{name}.css" for name in STYLES],
    "head": "".join(
        f'<script type="module">{(FOLDER / f"{name}.js").read_text("utf-8")}</script>'
        for name in SCRIPTS
    ),
    "max_file_size": f"{read_upload_mb()}mb",
    "state_session_capacity": MAX_SESSIONS,
    "footer_links": ["api"],
    "ssr_mode": False,
    # A request that waits in a queue of the service holds a thread: up to 28 to search, 14 to open
    # a scene, 17 to ask.
    "max_threads": 80,
    "mcp_server": find_spec("mcp") is not None,
}


def build_app(models: Models) -> gr.Blocks:
    """Build the page; launch it with `LAUNCH_OPTIONS`.

    Each visitor has a session. The model answers one request at a time, and the others wait in a
    bounded queue.
    """
    service = make_service(models)
    service.reader.start()
    examples = [service.open_result(example) for example in models.examples]
    with CheckedPage(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=CACHE_SECONDS
    ) as page:
        session = add_session(page)
        gr.HTML(f"{SKIP_LINK}<h1>{TITLE}</h1><p>{PURPOSE}</p>", elem_id="header")
        warning = gr.HTML(show_warning(models), elem_id="warning", visible=bool(models.warning))
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Chat", id="chat", elem_id="chat-tab"):
                maps_cover = models.bridge.config.segmentation_head
                chat = build_chat_tab(session, examples, has_cover_map=maps_cover)
                wire_chat_tab(chat, page, service, examples)
            with gr.Tab("Search", id="search", elem_id="search-tab") as search_tab:
                searching = SearchHandlers(service)
                search = build_search_tab(session, searching)
                wire_search_tab(search, searching, tabs, chat, search_tab)
            with gr.Tab("Map", id="map", elem_id="map-tab") as map_tab:
                world_map = build_map_tab(session, map_tab, service.index)
                wire_map_tab(world_map, service, tabs, chat, search, searching)
            with gr.Tab("Compare", id="compare", elem_id="compare-tab"):
                wire_compare_tab(build_compare_tab(session), service)
        about = gr.HTML(show_models(models), elem_id="about")
        add_tools(service)
        if models.pending is not None:
            shown = ShownModels(models, service)
            models.pending.add_done_callback(shown.replace)
            page.load(
                shown.show_current,
                None,
                [warning, about, chat.panel.cover_map],
                api_visibility="private",
                show_progress="hidden",
            )
        hide_page_endpoints(page)
    # No call can pass the queue, and so its limits.
    return page.queue(max_size=QUEUE_SIZE, api_open=False)


class ShownModels:
    """The models that the page describes: the first ones until others replace them."""

    def __init__(self, models: Models, service: SceneService) -> None:
        self.models = models
        self.service = service

    def replace(self, pending: Future[Models]) -> None:
        """Let models answer that have just been loaded; log the error where loading failed."""
        if pending.exception() is not None:
            logger.error("The models cannot be used: %s", pending.exception())
            return
        loaded = pending.result()
        warm_up(loaded)
        self.service.replace_models(loaded.bridge, loaded.index)
        self.models = loaded

    def show_current(self) -> tuple[gr.HTML, str, gr.Button]:
        """Return the warning, the footer and the button of the land-cover map for a new page."""
        text = show_warning(self.models)
        maps_cover = self.models.bridge.config.segmentation_head
        warning = gr.HTML(text, visible=bool(text))
        return warning, show_models(self.models), gr.Button(visible=maps_cover)


def make_service(models: Models) -> SceneService:
    """Return the service that opens scenes and answers questions for the page."""
    return SceneService(models.bridge, models.index, gpu_decorator=borrow_gpu)


def warm_up(models: Models) -> None:
    """Answer and embed once, so that the first visitor does not wait for lazy loading."""
    for example in models.examples[:1]:
        scene = example.open_scene()
        models.bridge.generate(scene, DEFAULT_PROMPT, max_length=1)
        models.bridge.embed([scene])


def show_warning(models: Models) -> str:
    """Return HTML of the models' warning, "" where there is none."""
    return f"<p>{html.escape(models.warning)}</p>" if models.warning else ""


def show_models(models: Models) -> str:
    """Return HTML that says what answers, and to unfold its limits, the scenes and licences."""
    bridge = models.bridge
    encoder, language = map(html.escape, bridge.model_names)
    return (
        f"<p>Answers come from {language}, which sees scenes through {encoder}.</p>"
        "<details><summary>About the model, the scenes and their licences</summary>"
        f"<p><strong>Model:</strong> {html.escape(bridge.summary)}</p>"
        f"<p><strong>Scenes:</strong> {html.escape(models.index.summary)}</p>"
        f"<p><strong>Limits:</strong> {html.escape(bridge.limits)}</p>"
        f"<p>{ATTRIBUTION}</p></details>"
    )
