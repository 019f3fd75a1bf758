"""What a front end asks for: scenes opened by name, answers in turn, what was measured beside them.

The web page, its API and its MCP tools all call this; none of them touches a model itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from earthvlm.bridge.attention_maps import AnswerAttention, attend
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.embeddings.filters import SceneFilter
from earthvlm.generation.sampling import check_prompt
from earthvlm.models.chat_templates import Message
from earthvlm.scenes.distribution_shift import TrainingStatistics, warn_out_of_distribution
from earthvlm.scenes.isolated_reader import IsolatedReader
from earthvlm.scenes.memory import trim_memory
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.spectral_indices import SpectralIndices, measure
from earthvlm.search.index import Query, SceneIndex, SceneResult, SearchResults
from earthvlm.search.query import embed_scene
from earthvlm.serving.measurements import suggest_questions
from earthvlm.serving.request_queue import RequestQueue, work_in

# As many threads search, and one runs the bridge, whichever of a server's dozens ask: each that
# works with torch keeps memory for it (8 MB after an answer, 2 MB after a search by words, a heap
# and OpenMP's helpers besides), and all of them would come to have it, one after another.
SEARCHES_AT_ONCE = 4
# How many wait for a search or for a file to be opened, in all and of one address. A page asks for
# one thing at a time; a few pages behind one address ask for a few.
SEARCHES_WAITING, SEARCHES_PER_ADDRESS = 24, 4
OPENINGS_WAITING, OPENINGS_PER_ADDRESS = 12, 4


@dataclass(frozen=True, eq=False)
class OpenScene:
    """A scene with what was measured in it, before any model speaks.

    origin: the row of the index it came from, None for a visitor's own.
    warnings: why answers about it deserve less trust. questions: some that fit it.
    """

    scene: Scene
    measured: SpectralIndices | None
    warnings: tuple[str, ...]
    questions: tuple[str, ...]
    origin: SceneResult | None = None


@dataclass(frozen=True, eq=False)
class Example:
    """A visitor's scene as a search keeps it: its name and embedding `[384]`, not its pixels."""

    name: str
    vector: np.ndarray


@dataclass(frozen=True)
class Client:
    """Whose question it is: `user` may have one in line, `address` a few."""

    user: str
    address: str = ""


@dataclass(frozen=True)
class Waiting:
    """Said while an answer waits for its turn: how many are ahead."""

    ahead: int


class SceneService:
    """One bridge and one index, shared by everybody.

    training_tiles: what the bridge learned from, where that is known; see
    `warn_out_of_distribution`.
    reader: decodes what visitors upload.
    borrow: wraps each function that runs the bridge, where it is to run in another process with a
        GPU; what such a function takes and gives can be pickled.
    """

    def __init__(
        self,
        bridge: OlmoEarthVLMBridge,
        index: SceneIndex,
        training_tiles: TrainingStatistics | None = None,
        line: RequestQueue | None = None,
        borrow: Callable[[Callable], Callable] | None = None,
        reader: IsolatedReader | None = None,
    ) -> None:
        self._served = (bridge, index, training_tiles)
        self.line = line or RequestQueue()
        self.reader = reader or IsolatedReader()
        self.openings = RequestQueue(
            OPENINGS_WAITING,
            OPENINGS_PER_ADDRESS,
            served_at_once=self.reader.readers,
            work="file",
            once_per_user=False,
        )
        self.searches = RequestQueue(
            SEARCHES_WAITING,
            SEARCHES_PER_ADDRESS,
            served_at_once=SEARCHES_AT_ONCE,
            served_per_address=SEARCHES_AT_ONCE // 2,
            work="search",
            once_per_user=False,
        )
        run = borrow or partial(work_in, ThreadPoolExecutor(1, "earthvlm-model"))
        self._attend, self._embed = run(self._attend_here), run(self._embed_here)
        if borrow is None:
            self._stream = run(self._stream_here)
        else:
            stream = borrow(self._stream_whole)
            # No event reaches another process: there, closing ends the answer.
            self._stream = lambda *arguments, stop: stream(*arguments)
        searching = ThreadPoolExecutor(SEARCHES_AT_ONCE, "earthvlm-search")
        self._search = work_in(searching, self._search_here)

    @property
    def bridge(self) -> OlmoEarthVLMBridge:
        """The bridge that answers."""
        return self._served[0]

    @property
    def index(self) -> SceneIndex:
        """The scenes that are searched."""
        return self._served[1]

    def replace_models(
        self,
        bridge: OlmoEarthVLMBridge,
        index: SceneIndex,
        training_tiles: TrainingStatistics | None = None,
    ) -> None:
        """Serve what is asked from now on by others; an answer under way ends as it began."""
        self._served = (bridge, index, training_tiles)

    @contextmanager
    def opening(self, client: Client) -> Iterator[Callable[..., Scene]]:
        """Wait for a turn to open scenes, and hold it while they are opened, measured and drawn.

        Yields what opens a visitor's file: it takes what `Scene.open` does and decodes in a child
        process. Raises QueueFull where too many wait.
        """
        with self.openings.turn(client.user, client.address):
            try:
                yield self.reader.open
            finally:
                trim_memory()

    def open(self, scene: Scene, origin: SceneResult | None = None) -> OpenScene:
        """Measure a scene and get it ready to be asked about."""
        measured = measure(scene)
        warnings = warn_out_of_distribution(scene, self._served[2])
        return OpenScene(
            scene, measured, tuple(warnings), tuple(suggest_questions(measured)), origin
        )

    def open_result(self, result: SceneResult) -> OpenScene:
        """Open a scene of the index. Raises ValueError where only its caption is there."""
        if result.scene_file is None:
            raise ValueError(
                f"The dataset holds a thumbnail of {result.image_id} but not its bands; "
                "open the scene's own file instead"
            )
        scene = Scene.open(result.scene_file)
        return self.open(replace(scene, date=scene.date or result.date), result)

    def open_named(self, image_id: str) -> OpenScene:
        """Open a scene of the index by its image_id. Raises ValueError where there is none."""
        return self.open_result(self.index.get(image_id))

    def answer(
        self,
        scene: Scene,
        conversation: Sequence[Message],
        client: Client,
        max_length: int = 160,
        temperature: float = 0.0,
        stop: threading.Event | None = None,
    ) -> Iterator[Waiting | str]:
        """Answer the last message of a conversation, piece by piece, when its turn has come.

        Yields Waiting while others are ahead. Setting `stop` ends the wait and the answer; closing
        the iterator does too. Raises QueueFull where too many wait, and what `check_prompt` raises.
        """
        check_prompt(conversation[-1]["content"])
        stop = stop or threading.Event()
        with self._place(client) as waiting:
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

    def ask(self, scene: Scene, question: str, client: Client, max_length: int = 160) -> str:
        """Answer one question about a scene, whole. Raises what `answer` does."""
        asked: list[Message] = [{"role": "user", "content": question}]
        pieces = self.answer(scene, asked, client, max_length)
        return "".join(piece for piece in pieces if isinstance(piece, str)).strip()

    def attend(
        self, scene: Scene, conversation: Sequence[Message], client: Client
    ) -> AnswerAttention:
        """Where the last answer looked, when its turn has come. Raises what `attend` does."""
        with self._turn(client):
            return self._attend(scene, list(conversation))

    def _stream_here(self, *arguments: Any, stop: threading.Event) -> Iterator[str]:
        yield from self.bridge.stream(*arguments, stop=stop)

    def _stream_whole(self, *arguments: Any) -> Iterator[str]:
        yield from self.bridge.stream(*arguments)

    def _attend_here(self, scene: Scene, conversation: Sequence[Message]) -> AnswerAttention:
        return attend(self.bridge, scene, conversation)

    def find(
        self,
        query: Query | Example | Sequence[Query | Example] | None,
        k: int,
        client: Client,
        where: SceneFilter | None = None,
    ) -> SearchResults:
        """Find scenes; no query lists them. Raises QueueFull where too many searches wait.

        A Scene waits for the model's turn, and is embedded before the search.
        """
        queries = list(query) if isinstance(query, list | tuple) else [query]
        queries = [
            self.embed(each, client) if isinstance(each, Scene) else each for each in queries
        ]
        known = [each.vector if isinstance(each, Example) else each for each in queries]
        with self.searches.turn(client.user, client.address):
            if query is None:
                return SearchResults(self.index.browse(k=k, where=where))
            return self._search(known, k, where)

    def embed(self, scene: Scene, client: Client) -> Example:
        """Embed a visitor's scene for a search, when its turn has come."""
        with self._turn(client):
            return Example(scene.name, self._embed(scene))

    def _embed_here(self, scene: Scene) -> np.ndarray:
        return embed_scene(scene, self.index.provenance, self.bridge)

    def _search_here(
        self, query: Sequence[Query], k: int, where: SceneFilter | None
    ) -> SearchResults:
        return self.index.search(query, k, where=where)

    @contextmanager
    def _place(self, client: Client) -> Iterator[Iterator[int]]:
        """A place in the line: how many are ahead, until its turn has come."""
        place = self.line.join(client.user, client.address)
        try:
            yield self.line.wait(place)
        finally:
            self.line.leave(place)
            trim_memory()

    @contextmanager
    def _turn(self, client: Client) -> Iterator[None]:
        try:
            with self.line.turn(client.user, client.address):
                yield
        finally:
            trim_memory()
