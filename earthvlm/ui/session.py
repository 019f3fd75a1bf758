"""What the app remembers of one visitor, for how long, and how much of it."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import gradio as gr

from earthvlm.bridge.attention_maps import AnswerAttention
from earthvlm.models.language.chat_templates import Message
from earthvlm.scenes.memory import trim_memory
from earthvlm.scenes.pictures.composites import BALANCED
from earthvlm.scenes.scene import Scene
from earthvlm.search.index import SceneResult
from earthvlm.serving.service import Client, Example, OpenScene
from earthvlm.ui.errors import shorten
from earthvlm.ui.html.cover_map_html import CoverOverlay
from earthvlm.ui.search_query import SORTS, SearchQuery
from earthvlm.ui.uploads import Upload

SESSION_SECONDS = 3600
# A phone that was put away for a moment finds its conversation again.
CLOSED_SECONDS = 300
# The memory of all sessions together, and of one address. A scene of 2048 x 2048 pixels takes
# 200 MB; a session can hold three, two of them in Compare, and keeps them while it is the latest.
MAX_BYTES, MAX_BYTES_PER_ADDRESS = 650_000_000, 300_000_000
STOP_SECONDS = 10  # a model that answers stops within a token
NOTHING_OPEN = (
    "No scene is open, or it was closed after some time without use: upload one or choose an "
    "example"
)

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Turn:
    """One answer that is being generated: how to stop it, and to wait until it has ended."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.ended = threading.Event()
        self.ended.set()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Mark the time in which this answer may still change the page."""
        self.ended.clear()
        try:
            yield
        finally:
            self.stop.set()
            self.ended.set()


@dataclass(eq=False)
class Session:
    """What the app remembers of one visitor: open scenes, the conversation, the last search.

    composite, stretch: how the open scene is drawn; None where it has no bands to choose from.
    talk: an identifier of the conversation, by which the browser keeps it.
    covers: the land cover that is shown over it, once it was asked for.
    results: of the last search, None before the first, in the order of `sort`; `page` is shown.
    marks: whether a scene was marked as wanted or as unwanted, by its image_id. located: the row of
    the scene that the map is to show when it is opened. map_area: the bounding box and the town
    that its fields were given last. linked_question: from the page's address.
    upload: the files that the open scene is a part or an overview of, or that wait for an order of
    their bands to be chosen. orders: those to choose from.
    used: time of the last use, on the monotonic clock. address: the visitor's latest.
    """

    opened: OpenScene | None = None
    composite: str | None = None
    stretch: str = BALANCED
    conversation: list[Message] = field(default_factory=list)
    talk: str = field(default_factory=lambda: secrets.token_hex(8))
    attention: AnswerAttention | None = None
    covers: CoverOverlay | None = None
    pair: list[OpenScene] = field(default_factory=list)
    query: SearchQuery = field(default_factory=SearchQuery)
    results: tuple[SceneResult, ...] | None = None
    sort: str = SORTS[0]
    page: int = 0
    marks: dict[str, bool] = field(default_factory=dict)
    located: int | None = None
    map_area: tuple[str, str] = ("", "")
    linked_question: str = ""
    turn: Turn | None = None
    upload: Upload | None = None
    orders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)
    address: str = ""

    @property
    def scenes(self) -> list[Scene]:
        """The open scenes, each once."""
        opened = (self.opened, *self.pair)
        return list({id(each.scene): each.scene for each in opened if each is not None}.values())

    def held_parts(self) -> dict[int, int]:
        """Return the bytes of each large object it holds, by the object's id.

        These are scenes, maps, the last query and the messages. Sessions can share
        objects.
        """
        held: list[tuple[object, int]] = [(s, s.nbytes) for s in self.scenes]
        if self.attention is not None:
            held.append(
                (self.attention, self.attention.maps.nbytes + self.attention.baseline.nbytes)
            )
        if self.covers is not None:
            held.append((self.covers.classes, self.covers.classes.nbytes))
        held += [(q, q.vector.nbytes) for q in self.query.like if isinstance(q, Example)]
        # A character takes four bytes at most.
        held += [(message, 4 * len(message["content"])) for message in self.conversation]
        return {id(thing): size for thing, size in held}

    def keep_search(self, query: SearchQuery, results: Iterable[SceneResult]) -> None:
        """Keep a search without its thumbnails: 96 of them take 5 MB, of every made-up session."""
        self.query, self.page = query, 0
        self.results = tuple(replace(result, thumbnail=None) for result in results)

    def require_opened(self) -> OpenScene:
        """Return the open scene. Raises ValueError where there is none."""
        if self.opened is None:
            raise ValueError(NOTHING_OPEN)
        return self.opened

    def open_scene(self, opened: OpenScene | None, upload: Upload | None = None) -> None:
        """Open a scene, and begin a conversation about it.

        opened: None closes the last one. upload: the files to keep, of which other parts can be
        opened; those of another scene are deleted.
        """
        self.begin_conversation()
        self.used = time.monotonic()
        self.opened, self.orders = opened, {}
        self._keep_upload(upload)
        composites = opened.scene.available_composites() if opened else ()
        self.composite = next(iter(composites), None)
        self.stretch, self.covers = BALANCED, None

    def begin_conversation(self) -> None:
        """Stop the answer, and begin another conversation about the scene that is open."""
        self.end_turn()
        self.conversation, self.attention = [], None
        self.talk = secrets.token_hex(8)

    def _keep_upload(self, upload: Upload | None) -> None:
        before, self.upload = self.upload, upload
        if before is not None and (upload is None or upload.paths != before.paths):
            before.discard()

    def clear(self) -> None:
        """Stop the answer and delete scenes, conversation, query, results and uploads."""
        self.stop_turn()
        self._keep_upload(None)
        self.opened, self.pair, self.attention, self.covers = None, [], None, None
        self.conversation, self.query, self.results = [], SearchQuery(), None
        self.marks, self.page, self.located = {}, 0, None

    def clear_unless_used(self, since: float) -> None:
        """Clear the session where it was not used after `since`, on the clock of `used`."""
        if self.used <= since:
            self.clear()

    @property
    def is_answering(self) -> bool:
        """Whether an answer is being generated that nobody has stopped."""
        turn = self.turn
        return turn is not None and not (turn.stop.is_set() or turn.ended.is_set())

    def begin_turn(self) -> Turn:
        """End the current answer, if there is one, and return the turn of the next."""
        self.end_turn()
        self.turn = Turn()
        return self.turn

    def stop_turn(self) -> None:
        """Ask the current answer to stop; its text so far stays."""
        if self.turn is not None:
            self.turn.stop.set()

    def end_turn(self) -> None:
        """Stop the current answer and wait until it can no longer change the page."""
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.stop.set()
            turn.ended.wait(timeout=STOP_SECONDS)


# By the hash that Gradio gives each open page, to find the session of a page that is closed.
SESSIONS: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()
HOLDING: weakref.WeakSet[Session] = weakref.WeakSet()


def add_session(page: gr.Blocks) -> gr.State:
    """Add the visitor's session to the page; it is cleared SESSION_SECONDS after its last use.

    Closing the page stops the answer at once, and clears the session after CLOSED_SECONDS where
    the page does not come back.
    """

    async def leave(request: gr.Request) -> None:
        session = SESSIONS.get(request.session_hash or "")
        if session is None:
            return
        session.stop_turn()
        loop = asyncio.get_running_loop()
        loop.call_later(CLOSED_SECONDS, session.clear_unless_used, session.used)

    page.unload(leave)
    return gr.State(Session(), time_to_live=SESSION_SECONDS, delete_callback=Session.clear)


def identify_client(session: Session, request: gr.Request) -> Client:
    """Return who sent a request, and note the session for when its page is closed."""
    user = request.session_hash or f"call-{id(request)}"
    SESSIONS[user] = session
    session.used = time.monotonic()
    session.address = address_of(request)
    return Client(user, session.address)


def address_of(request: gr.Request) -> str:
    """Return the address that a request came from, as the middleware found it."""
    return request.client.host if request.client else ""


def check_index(index: object, count: int) -> int:
    """Return an event's index into a list of `count` scenes. Raises ValueError for any other."""
    if type(index) is not int or not 0 <= index < count:
        raise ValueError(f"there is no scene at index {shorten(index)} of this list; search again")
    return index


def limit_memory(session: Session) -> None:
    """Clear the sessions unused longest where all together hold more than MAX_BYTES.

    First the sessions of this session's address are held to MAX_BYTES_PER_ADDRESS, so that one
    visitor does not close the scenes of others. This session itself keeps its scenes.
    """
    HOLDING.add(session)
    sessions = sorted(HOLDING, key=lambda each: each.used)
    alike = [each for each in sessions if each.address == session.address]
    freed = _clear_oldest(alike, MAX_BYTES_PER_ADDRESS, session) if session.address else False
    freed = _clear_oldest(sessions, MAX_BYTES, session) or freed
    if freed:
        trim_memory()


def _clear_oldest(sessions: list[Session], limit: int, kept: Session) -> bool:
    """Clear sessions but one, in their order, until all hold `limit` bytes; return if any was."""
    parts = {id(each): each.held_parts() for each in sessions}
    sizes = {key: size for held in parts.values() for key, size in held.items()}
    holders = Counter(key for held in parts.values() for key in held)
    taken, freed = sum(sizes.values()), False
    for each in sessions:
        if taken <= limit:
            break
        if each is kept:
            continue
        # Many sessions share an example scene, so closing it in one frees nothing.
        alone = sum(size for key, size in parts[id(each)].items() if holders[key] == 1)
        if alone:
            taken -= alone
            each.end_turn()
            each.clear()
            freed = True
    return freed


def page_only(handler: Handler) -> Handler:
    """Keep a handler that needs a session off the list of MCP tools; API clients may call it.

    MCP calls have no session, so a scene that one call opened would be gone in the next.
    """
    handler._mcp_type = "page"  # type: ignore[attr-defined]  # noqa: SLF001  Gradio reads it
    return handler
