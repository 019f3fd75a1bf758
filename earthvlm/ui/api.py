"""Three typed tools that programs and assistants call without a page, by API and MCP."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import gradio as gr

from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.scenes.analysis.spectral_indices import SOURCES
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.serving.agreement import find_disagreements
from earthvlm.serving.service import Client, OpenScene, SceneService
from earthvlm.ui.session import address_of
from earthvlm.ui.tabs.filters import ALL_SPLITS, check_number, read_filter

MAX_RESULTS = 50
MAX_TOKENS = 512
MAX_CANDIDATES = 50


class Tools:
    """The tools, answered by `service`. None of them keeps a session."""

    def __init__(self, service: SceneService) -> None:
        self.service = service

    def describe_scene(self, request: gr.Request, image_id: str) -> dict[str, Any]:
        """Describe a Sentinel-2 scene by measured land-cover shares and by its caption.

        Args:
            image_id: the scene's name, which search_scenes returns

        Returns:
            date, place, size and bands; land-cover shares, computed from the bands; warnings;
            the caption, which a model wrote and which can be wrong; and a sentence for each claim
            of the caption that departs from the shares
        """
        with self.service.opening(Client("tool", address_of(request))):
            opened = self.service.open_named(image_id)
        caption = opened.entry.caption if opened.entry else None
        described = _describe(opened, DEFAULT_PROMPT, caption or "")
        return {**described, "caption_by_model": caption}

    def ask_scene(
        self,
        request: gr.Request,
        image_id: str,
        question: str,
        max_length: int = 160,
        candidates: str = "",
    ) -> dict[str, Any]:
        """Ask a question about a Sentinel-2 scene; a small vision-language model answers.

        Args:
            image_id: the scene's name, which search_scenes returns
            question: in plain English, such as "Is there water?"
            max_length: maximum length of the answer, in tokens, from 1 to 512
            candidates: possible answers on a line each, such as "Yes." and "No."; the likeliest is
                the answer then. Empty lets the model write one

        Returns:
            the model's answer, which can be wrong; the probabilities of the candidates, if there
            are any; the measured shares of the scene; and a sentence for each claim of the answer
            that departs from them
        """
        check_number("max_length", max_length, 1, MAX_TOKENS)
        client = Client(f"tool-{uuid4()}", address_of(request))
        with self.service.opening(client):
            opened = self.service.open_named(image_id)
        given = list(dict.fromkeys(filter(None, map(str.strip, candidates.splitlines()))))
        check_number("number of candidates", len(given), 0, MAX_CANDIDATES)
        if given:
            shares = self.service.score(opened.scene, question, given, client)
            answer = max(shares, key=shares.__getitem__)
        else:
            shares = {}
            answer = self.service.ask(opened.scene, question, client, max_length)
        chosen = {name: round(share, 4) for name, share in shares.items()}
        cover_map = self.service.find_map(opened.scene)
        described = _describe(opened, question, answer, cover_map)
        return {"answer_by_model": answer, "probabilities": chosen, **described}

    def search_scenes(
        self,
        request: gr.Request,
        words: str,
        count: int = 10,
        split: str = ALL_SPLITS,
        first_date: str = "",
        last_date: str = "",
        source: str = "",
        bbox: str = "",
    ) -> dict[str, Any]:
        """Find Sentinel-2 scenes by words, which are compared with captions and with scenes.

        Args:
            words: what the scene should show, such as "a lake beside forest"; a minus excludes a
                word, as in "river -city"
            count: how many scenes to return, from 1 to 50
            split: only scenes of this split of the dataset; "all" for every split
            first_date: only scenes of this day or later, as in 2020-06-30; empty for any
            last_date: only scenes of this day or earlier; empty for any
            source: only scenes whose source contains these words; empty for any
            bbox: only scenes inside west, south, east, north in degrees, as in "4, 47, 16, 55";
                west may be greater than east where the box crosses the date line, as in
                "170, -20, -170, 0"; empty for anywhere

        Returns:
            scenes, nearest first: image_id, caption, place, date, cosine similarities; and a
            warning if the search could not be done as asked, else an empty text
        """
        check_number("count", count, 1, MAX_RESULTS)
        where = read_filter(first_date, last_date, source, bbox, split)
        results = self.service.search(words, count, Client("tool", address_of(request)), where)
        scenes = [
            {
                "image_id": result.image_id,
                "caption_by_model": result.caption,
                "longitude": result.longitude,
                "latitude": result.latitude,
                "date": result.date.isoformat() if result.date else None,
                "caption_similarity": result.caption_similarity,
                "scene_similarity": result.scene_similarity,
            }
            for result in results
        ]
        return {"scenes": scenes, "warning": results.warning}


def add_tools(service: SceneService) -> None:
    """Add the endpoints `/describe_scene`, `/ask_scene` and `/search_scenes`."""
    tools = Tools(service)
    for tool in (tools.describe_scene, tools.ask_scene, tools.search_scenes):
        gr.api(tool, concurrency_limit=None, api_name=tool.__name__)


def _describe(
    opened: OpenScene, question: str, answer: str, cover_map: CoverMap | None = None
) -> dict[str, Any]:
    scene, measured = opened.scene, opened.measurements
    shares = measured.shares if measured else {}
    errors = {cover: measured.error(cover) for cover in shares} if measured else {}
    return {
        "image_id": scene.name,
        "date": scene.date.isoformat() if scene.date else None,
        "longitude": scene.longitude,
        "latitude": scene.latitude,
        "width": scene.width,
        "height": scene.height,
        "bands": list(scene.bands),
        "measured_shares": {cover: round(share, 4) for cover, share in shares.items()},
        "measured_errors": {cover: round(error, 4) for cover, error in errors.items()},
        "measured_how": SOURCES,
        "disagreements": find_disagreements(question, answer, measured, cover_map),
        "warnings": [*opened.warnings, *scene.notes],
    }
