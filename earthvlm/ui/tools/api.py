"""Three typed tools that programs and assistants call without a page, by API and MCP.

Gradio reads the types of results as they stand, so annotations are not postponed here.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import gradio as gr
from PIL import Image

from earthvlm.bridge.hub.model_card import OLMOEARTH_LICENCE
from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.metrics.agreement import find_disagreements
from earthvlm.scenes.analysis.spectral_indices import SOURCES
from earthvlm.scenes.land_cover import COVERS, CoverMap
from earthvlm.search.index import SceneResult
from earthvlm.serving.service import Client, Example, OpenScene, SceneService
from earthvlm.ui.session import address_of
from earthvlm.ui.tabs.search.filters import ALL_SPLITS, check_number, read_filter
from earthvlm.ui.tools.caller_scenes import CallerScenes
from earthvlm.ui.tools.tool_results import (
    Answer,
    Description,
    Found,
    FoundScene,
    LandCoverMap,
    SceneFacts,
)

MAX_RESULTS = 50
MAX_TOKENS = 512
MAX_CANDIDATES = 50
EMBEDDING_DECIMALS = 6


class Tools:
    """The tools, answered by `service`. None of them keeps a session or a caller's scene."""

    def __init__(self, service: SceneService) -> None:
        self.service = service
        self.scenes = CallerScenes()

    def describe_scene(
        self,
        request: gr.Request,
        image_id: str = "",
        image: str = "",
        window: str = "",
        with_map: bool = False,
        with_embedding: bool = False,
    ) -> Description:
        """Describe a Sentinel-2 scene of the dataset, or the caller's own, as data.

        Args:
            image_id: The name of a scene of the dataset, which search_scenes returns. Leave it
                empty to send an image instead.
            image: A scene of your own. Give the bytes of a GeoTIFF, JPEG 2000, PNG, JPEG or WebP in
                base64, up to 1,000,000 characters. For a larger file, post it to
                /gradio_api/upload and give the name of the folder in the path that is returned, 64
                letters and digits, within five minutes.
            window: The part of your image to read, as first column, first row, width and height in
                pixels, such as "0 0 512 512". Leave it empty to read the whole image, which then
                has at most 1,048,576 pixels.
            with_map: Whether to return the model's land cover of each pixel, if it maps any.
            with_embedding: Whether to return the scene's embedding, 384 numbers in the space in
                which scenes are searched.

        Returns:
            date, place, size and bands; land-cover shares, computed from the bands; warnings;
            the caption, which a model wrote and which can be wrong; a sentence for each claim
            of the caption that departs from the shares; map and embedding, if asked for; licences
        """
        client = Client(f"tool-{uuid4()}", address_of(request))
        with self._open(client, image_id, image, window) as opened:
            if opened.entry is not None:
                caption = opened.entry.caption
            else:
                caption = self.service.ask(opened.scene, DEFAULT_PROMPT, client)
            cover_map, missing = None, []
            if with_map and self.service.bridge.config.segmentation_head:
                cover_map = self.service.map_land_cover(opened.scene, client)
            elif with_map:
                missing = ["This model does not map land cover, so there is no map."]
            embedding = None
            if with_embedding:
                vector = self.service.embed(opened.scene, client).vector
                embedding = [round(float(number), EMBEDDING_DECIMALS) for number in vector]
            facts = self._describe(opened, DEFAULT_PROMPT, caption or "", cover_map)
        facts["warnings"] += missing
        return {
            **facts,
            "caption_by_model": caption,
            "land_cover_map": write_map(cover_map) if cover_map else None,
            "embedding": embedding,
        }

    def ask_scene(
        self,
        request: gr.Request,
        image_id: str = "",
        question: str = DEFAULT_PROMPT,
        max_length: int = 160,
        candidates: str = "",
        image: str = "",
        window: str = "",
    ) -> Answer:
        """Ask a question about a Sentinel-2 scene; a small vision-language model answers.

        Args:
            image_id: The name of a scene of the dataset, which search_scenes returns. Leave it
                empty to send an image instead.
            question: The question in plain English, such as "Is there water?".
            max_length: The maximum length of the answer in tokens, from 1 to 512.
            candidates: Possible answers on a line each, such as "Water." and "Forest.", of which
                the likeliest is returned. Leave it empty to let the model write an answer.
            image: A scene of your own, as describe_scene takes it: the bytes of a picture file in
                base64, or the id of an upload.
            window: The part of your image to read, as first column, first row, width and height in
                pixels. Leave it empty to read the whole image.

        Returns:
            the model's answer, which can be wrong; the probabilities of the candidates, if there
            are any; the measured shares of the scene; a sentence for each claim of the answer
            that departs from them; licences
        """
        check_number("max_length", max_length, 1, MAX_TOKENS)
        given = list(dict.fromkeys(filter(None, map(str.strip, candidates.splitlines()))))
        check_number("number of candidates", len(given), 0, MAX_CANDIDATES)
        client = Client(f"tool-{uuid4()}", address_of(request))
        with self._open(client, image_id, image, window) as opened:
            if given:
                shares = self.service.score(opened.scene, question, given, client)
                answer = max(shares, key=shares.__getitem__)
            else:
                shares = {}
                answer = self.service.ask(opened.scene, question, client, max_length)
            cover_map = self.service.find_map(opened.scene)
            facts = self._describe(opened, question, answer, cover_map)
        chosen = {name: round(share, 4) for name, share in shares.items()}
        return {**facts, "answer_by_model": answer, "probabilities": chosen}

    def search_scenes(
        self,
        request: gr.Request,
        words: str = "",
        count: int = 10,
        split: str = ALL_SPLITS,
        first_date: str = "",
        last_date: str = "",
        source: str = "",
        bbox: str = "",
        image_id: str = "",
        image: str = "",
        window: str = "",
    ) -> Found:
        """Find Sentinel-2 scenes by words, by an example, or by both.

        Args:
            words: What the scenes should show, such as "a lake beside forest". A minus excludes a
                word, as in "river -city". Leave it empty to search by an example alone.
            count: How many scenes to return, from 1 to 50.
            split: The split of the dataset to search, or "all" for every split.
            first_date: The earliest day of the scenes, as in 2020-06-30. Leave it empty for any.
            last_date: The latest day of the scenes. Leave it empty for any.
            source: Words that the source of the scenes contains. Leave it empty for any source.
            bbox: The box in which the scenes lie, as west, south, east and north in degrees, such
                as "4, 47, 16, 55". West may be greater than east where the box crosses the date
                line, as in "170, -20, -170, 0". Leave it empty for anywhere.
            image_id: The name of a scene of the dataset to which the results are similar. Leave it
                empty to search without it.
            image: A scene of your own to which the results are similar, as describe_scene takes
                it: the bytes of a picture file in base64, or the id of an upload.
            window: The part of your image to read, as first column, first row, width and height in
                pixels. Leave it empty to read the whole image.

        Returns:
            scenes, nearest first: image_id, caption, place, date, licence, cosine similarities;
            and a warning, such as of scenes without a date that a filter left out, or an empty text
        """
        check_number("count", count, 1, MAX_RESULTS)
        where = read_filter(first_date, last_date, source, bbox, split)
        client = Client(f"tool-{uuid4()}", address_of(request))
        queries: list[str | Example | SceneResult] = [words]
        if image_id and not image:
            queries.append(self.service.index.get(image_id))
        elif image:
            with self._open(client, image_id, image, window) as opened:
                queries.append(self.service.embed(opened.scene, client))
        if len(queries) == 2 and not words.strip():
            del queries[0]
        found = self.service.search(
            queries if len(queries) == 2 else queries[0], count, client, where
        )
        return {"scenes": [_write_result(result) for result in found], "warning": found.warning}

    @contextmanager
    def _open(self, client: Client, image_id: str, image: str, window: str) -> Iterator[OpenScene]:
        """Open a scene of the dataset or of the caller for the time of a call."""
        if bool(image_id) == bool(image):
            raise ValueError("Give either image_id or image: one scene at a time")
        with self.service.opening(client) as read:
            if image_id:
                opened = self.service.open_named(image_id)
            else:
                scene = self.scenes.open(image, window, read, client.address)
                opened = self.service.open(scene)
        if opened.entry is not None:
            yield opened
            return
        with self.scenes.hold(opened.scene):
            yield opened

    def _describe(
        self, opened: OpenScene, question: str, answer: str, cover_map: CoverMap | None
    ) -> SceneFacts:
        scene, measured = opened.scene, opened.measurements
        shares = measured.shares if measured else {}
        errors = {cover: measured.error(cover) for cover in shares} if measured else {}
        entry = opened.entry
        return {
            "image_id": entry.image_id if entry else None,
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
            "licence": {"scene": entry.source if entry else None, "model": self._model_licence()},
        }

    def _model_licence(self) -> str:
        if self.service.bridge.config.olmoearth_model_id.startswith("random-"):
            return "Apache-2.0"
        return f"OlmoEarth Artifact License, whose use restrictions pass on: {OLMOEARTH_LICENCE}"


def add_tools(service: SceneService) -> None:
    """Add the endpoints `/describe_scene`, `/ask_scene` and `/search_scenes`."""
    tools = Tools(service)
    for tool in (tools.describe_scene, tools.ask_scene, tools.search_scenes):
        gr.api(tool, concurrency_limit=None, api_name=tool.__name__)


def hide_page_endpoints(page: gr.Blocks) -> None:
    """Take every endpoint but the tools off the list for programs.

    The others answer with what the page shows, and to the page's own session.
    """
    tools = (Tools.describe_scene, Tools.ask_scene, Tools.search_scenes)
    for endpoint in page.fns.values():
        if endpoint.api_name not in [tool.__name__ for tool in tools]:
            endpoint.api_visibility = "private"


def _write_result(result: SceneResult) -> FoundScene:
    return {
        "image_id": result.image_id,
        "caption_by_model": result.caption,
        "longitude": result.longitude,
        "latitude": result.latitude,
        "date": result.date.isoformat() if result.date else None,
        "licence": result.source,
        "caption_similarity": result.caption_similarity,
        "scene_similarity": result.scene_similarity,
        "example_similarity": result.example_similarity,
    }


def write_map(cover_map: CoverMap) -> LandCoverMap:
    """Return a land-cover map as data."""
    data = io.BytesIO()
    Image.fromarray(cover_map.classes).save(data, format="PNG")
    height, width = cover_map.classes.shape
    return {
        "covers": list(COVERS),
        "shares": {cover: round(share, 4) for cover, share in cover_map.shares.items()},
        "width": width,
        "height": height,
        "png": base64.b64encode(data.getvalue()).decode(),
    }
