"""SceneService: opens scenes, answers questions and searches, for many clients of one model.

The web page, its API and its MCP tools all call it; none of them touches a model itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import softmax

from earthvlm.bridge.attention_maps import AnswerAttention, attend
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.embeddings.filters import SceneFilter
from earthvlm.generation.sampling import check_prompt
from earthvlm.models.language.chat_templates import Message
from earthvlm.scenes.analysis.distribution_shift import warn_out_of_distribution
from earthvlm.scenes.analysis.spectral_indices import SpectralIndices, measure
from earthvlm.scenes.isolated_reader import DEADLINE_SECONDS, IsolatedReader
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.memory import trim_memory
from earthvlm.scenes.scene import Scene
from earthvlm.search.index import Query, SceneIndex, SceneResult, SearchResults
from earthvlm.search.query import embed_scene
from earthvlm.serving.measurements import suggest_questions
from earthvlm.serving.owner_limits import read_address_factor, read_upload_factor
from earthvlm.serving.request_queue import MAX_PER_ADDRESS, RequestQueue, run_in

# Threads that search; one more runs the bridge. Each thread that works with torch keeps memory:
# 8 MB after an answer, 2 MB after a search by words, besides a heap and OpenMP's helpers. Without
# this bound each of the server's dozens of threads would come to keep it.
SEARCH_THREADS = 4
# How many searches, and files to be opened, may wait: in all and from one address. A page sends one
# request at a time, and a few pages may share an address.
MAX_SEARCHES_WAITING, MAX_SEARCHES_PER_ADDRESS = 24, 4
MAX_FILES_WAITING, MAX_FILES_PER_ADDRESS = 12, 4
LONGEST_READING_SECONDS = 180.0
ANSWER_TOKENS = 160


@dataclass(frozen=True, eq=False)
class OpenScene:
    """A scene that is ready to be asked about, with what was computed from its bands.

    Attributes:
        scene: The scene.
        measurements: Land-cover shares from spectral indices; None without near infrared.
        warnings: Why answers about the scene deserve less trust.
        questions: Suggestions that fit the scene.
        entry: Its entry in the index; None for a visitor's own scene.
    """

    scene: Scene
    measurements: SpectralIndices | None
    warnings: tuple[str, ...]
    questions: tuple[str, ...]
    entry: SceneResult | None = None

    @property
    def source(self) -> str:
        """Where a scene of the index is from, and its licence; "" for a visitor's own scene."""
        return (self.entry.source if self.entry else "") or ""


@dataclass(frozen=True, eq=False)
class Example:
    """A visitor's scene as a query: its name and embedding `[384]`, without its pixels."""

    name: str
    vector: np.ndarray


@dataclass(frozen=True)
class Client:
    """Who sends a request: `user` may have one question in the queue, `address` a few."""

    user: str
    address: str = ""


@dataclass(frozen=True)
class Waiting:
    """Yielded while an answer waits for its turn: how many questions are ahead."""

    ahead: int


class SceneService:
    """One bridge and one index, shared by all clients.

    Args:
        bridge: Answers and embeds.
        index: The scenes to search.
        gpu_decorator: Wraps each function that runs the bridge, if these run in another process
            with a GPU; their arguments and results can be pickled.
        reader: Decodes what visitors upload.
    """

    def __init__(
        self,
        bridge: OlmoEarthVLMBridge,
        index: SceneIndex,
        gpu_decorator: Callable[[Callable], Callable] | None = None,
        reader: IsolatedReader | None = None,
    ) -> None:
        self._models = bridge, index  # replaced together
        # A product as large as the owner allows takes longer to read than a picture.
        seconds = min(DEADLINE_SECONDS * read_upload_factor(), LONGEST_READING_SECONDS)
        self.reader = reader or IsolatedReader(deadline=seconds)
        factor = read_address_factor()
        self.question_queue = RequestQueue(max_per_address=int(MAX_PER_ADDRESS * factor))
        self.file_queue = RequestQueue(
            MAX_FILES_WAITING,
            int(MAX_FILES_PER_ADDRESS * factor),
            concurrency=self.reader.readers,
            work="file",
            one_per_user=False,
        )
        self.search_queue = RequestQueue(
            MAX_SEARCHES_WAITING,
            int(MAX_SEARCHES_PER_ADDRESS * factor),
            concurrency=SEARCH_THREADS,
            concurrency_per_address=SEARCH_THREADS // 2,
            work="search",
            one_per_user=False,
        )
        decorate = gpu_decorator or partial(run_in, ThreadPoolExecutor(1, "earthvlm-model"))
        self._attend, self._embed = decorate(self._run_attend), decorate(self._run_embed)
        self._map = decorate(self._run_map)
        self._score = decorate(self._run_score)
        if gpu_decorator is None:
            self._stream = decorate(self._run_stream)
        else:
            # An event cannot be passed to another process; closing the iterator ends the answer.
            stream = decorate(self._run_stream)
            self._stream = lambda *arguments, stop: stream(*arguments)
        search_threads = ThreadPoolExecutor(SEARCH_THREADS, "earthvlm-search")
        self._search = run_in(search_threads, self._run_search)

    @property
    def bridge(self) -> OlmoEarthVLMBridge:
        """The bridge that answers new questions."""
        return self._models[0]

    @property
    def index(self) -> SceneIndex:
        """The index that new searches use."""
        return self._models[1]

    def replace_models(
        self,
        bridge: OlmoEarthVLMBridge,
        index: SceneIndex,
    ) -> None:
        """Use other models from the next request on; answers that have begun keep theirs."""
        self._models = bridge, index

    @contextmanager
    def opening(self, client: Client) -> Iterator[Callable[..., Scene]]:
        """Wait for a turn to open scenes, and hold it while they are read, measured and drawn.

        Yields:
            A function that opens a visitor's file in a child process, with `Scene.open`'s
            arguments.

        Raises:
            QueueFull: Too many are waiting.
        """
        with self.file_queue.turn(client.user, client.address):
            try:
                yield self.reader.open
            finally:
                trim_memory()

    def open(self, scene: Scene, entry: SceneResult | None = None) -> OpenScene:
        """Measure a scene and prepare it for questions."""
        measurements = measure(scene)
        warnings = warn_out_of_distribution(scene, measurements, self.bridge.config.training_tiles)
        questions = suggest_questions(measurements)
        return OpenScene(scene, measurements, tuple(warnings), tuple(questions), entry)

    def open_result(self, entry: SceneResult) -> OpenScene:
        """Open a scene of the index. Raises ValueError if the index does not have its bands."""
        scene = entry.open_scene()
        return self.open(replace(scene, date=scene.date or entry.date), entry)

    def open_named(self, image_id: str) -> OpenScene:
        """Open a scene of the index by its image_id. Raises ValueError if there is none."""
        return self.open_result(self.index.get(image_id))

    def answer(
        self,
        scene: Scene,
        conversation: Sequence[Message],
        client: Client,
        max_length: int = ANSWER_TOKENS,
        temperature: float = 0.0,
        stop: threading.Event | None = None,
    ) -> Generator[Waiting | str, None, None]:
        """Answer the last message of a conversation piece by piece.

        Setting `stop` or closing the iterator ends the wait and the answer.

        Yields:
            Waiting while other questions are ahead, then the pieces of the answer.

        Raises:
            QueueFull: Too many are waiting.
            ValueError: `check_prompt` rejects the question.
        """
        check_prompt(conversation[-1]["content"])
        stop = stop or threading.Event()
        with self._join_questions(client) as waiting:
            for ahead in waiting:
                if stop.is_set():
                    return
                yield Waiting(ahead)
            pieces = self._stream(scene, list(conversation), max_length, temperature, stop=stop)
            with closing(pieces):
                for piece in pieces:
                    if stop.is_set():
                        return
                    yield piece

    def ask(
        self, scene: Scene, question: str, client: Client, max_length: int = ANSWER_TOKENS
    ) -> str:
        """Return the whole answer to one question about a scene. Raises what `answer` does."""
        conversation: list[Message] = [{"role": "user", "content": question}]
        pieces = self.answer(scene, conversation, client, max_length)
        return "".join(piece for piece in pieces if isinstance(piece, str)).strip()

    def attend(
        self, scene: Scene, conversation: Sequence[Message], client: Client
    ) -> AnswerAttention:
        """Compute the attention map of the last answer. Raises QueueFull and ValueError."""
        with self._question_turn(client):
            return self._attend(scene, list(conversation))

    def map_land_cover(self, scene: Scene, client: Client) -> CoverMap:
        """Map the land cover of a scene. Raises QueueFull, and ValueError without a head."""
        with self._question_turn(client):
            return self._map(scene)

    def find_map(self, scene: Scene) -> CoverMap | None:
        """Return the map that the bridge drew of a scene for its answers, if it is in memory."""
        return self.bridge.memory.cover_maps.get(scene)

    def score(
        self, scene: Scene, question: str, candidates: Sequence[str], client: Client
    ) -> dict[str, float]:
        """Return the probability of each candidate answer. Raises QueueFull and ValueError."""
        with self._question_turn(client):
            scores = self._score(scene, question, list(candidates))
        return dict(zip(candidates, map(float, softmax(scores)), strict=True))

    def search(
        self,
        query: Query | Example | Sequence[Query | Example] | None,
        k: int,
        client: Client,
        where: SceneFilter | None = None,
        unlike: Sequence[SceneResult] = (),
    ) -> SearchResults:
        """Return the k scenes nearest to a query, or the first k scenes if it is None.

        A Scene in the query waits for the model's turn to be embedded. unlike: scenes that results
        should be unlike.

        Raises:
            QueueFull: Too many are waiting.
            ValueError: The index rejects the query or filter.
        """
        queries = list(query) if isinstance(query, list | tuple) else [query]
        queries = [
            self.embed(each, client) if isinstance(each, Scene) else each for each in queries
        ]
        vectors = [each.vector if isinstance(each, Example) else each for each in queries]
        with self.search_queue.turn(client.user, client.address):
            if query is None:
                return self.index.browse(k=k, where=where)
            return self._search(vectors, k, where, unlike)

    def embed(self, scene: Scene, client: Client) -> Example:
        """Embed a visitor's scene for a search. Raises QueueFull and ValueError."""
        with self._question_turn(client):
            return Example(scene.name, self._embed(scene))

    def _run_stream(
        self,
        scene: Scene,
        conversation: Sequence[Message],
        max_length: int,
        temperature: float,
        stop: threading.Event | None = None,
    ) -> Iterator[str]:
        yield from self.bridge.stream(scene, conversation, max_length, temperature, stop=stop)

    def _run_attend(self, scene: Scene, conversation: Sequence[Message]) -> AnswerAttention:
        return attend(self.bridge, scene, conversation)

    def _run_map(self, scene: Scene) -> CoverMap:
        return self.bridge.map_land_cover(scene)

    def _run_embed(self, scene: Scene) -> np.ndarray:
        return embed_scene(scene, self.index.provenance, self.bridge)

    def _run_score(self, scene: Scene, question: str, candidates: Sequence[str]) -> np.ndarray:
        return self.bridge.score(scene, question, candidates)

    def _run_search(
        self,
        query: Sequence[Query],
        k: int,
        where: SceneFilter | None,
        unlike: Sequence[SceneResult],
    ) -> SearchResults:
        return self.index.search(query, k, where=where, unlike=unlike)

    @contextmanager
    def _join_questions(self, client: Client) -> Iterator[Iterator[int]]:
        """Join the queue, and yield how many are ahead until the turn comes."""
        ticket = self.question_queue.join(client.user, client.address)
        try:
            yield self.question_queue.wait(ticket)
        finally:
            self.question_queue.leave(ticket)
            trim_memory()

    @contextmanager
    def _question_turn(self, client: Client) -> Iterator[None]:
        try:
            with self.question_queue.turn(client.user, client.address):
                yield
        finally:
            trim_memory()
