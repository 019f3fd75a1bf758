"""What the tabs share: one visitor's session, and how errors are told to people."""

from __future__ import annotations

import asyncio
import functools
import html
import inspect
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from earthvlm.bridge.attention_maps import AnswerAttention
from earthvlm.models.chat_templates import Message
from earthvlm.scenes.memory import trim_memory
from earthvlm.scenes.scene import Scene
from earthvlm.search.index import SceneResult
from earthvlm.serving.service import Client, Example, OpenScene

logger = logging.getLogger(__name__)

# What a search is for: words, an example, both, or nothing, which lists the scenes.
Asked = str | Example | SceneResult | tuple[str, Example | SceneResult] | None
SESSION_SECONDS = 3600
# A phone that was put away for a moment comes back to its conversation.
CLOSED_SECONDS = 300
# What sessions hold, all together and of one address; a scene of 2048 x 2048 pixels takes 200 MB,
# and two are compared beside a third in Chat.
HELD_BYTES, HELD_BYTES_PER_ADDRESS = 1_500_000_000, 650_000_000
NOTICE_SECONDS = 20
SHOWN_CHARACTERS = 80  # of what a client sent, in an error about it
STOP_SECONDS = 10  # a model that answers stops within a token
NOTHING_OPEN = (
    "No scene is open, or it was closed after some time without use: upload one or choose an "
    "example"
)
UNEXPECTED = "That did not work, and the reason has been logged; try again, or another scene."


class Turn:
    """One answer: a way to stop it, and to wait until it shows no more."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.quiet = threading.Event()
        self.quiet.set()

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Mark the time in which words of this answer may still reach the page."""
        self.quiet.clear()
        try:
            yield
        finally:
            self.stop.set()
            self.quiet.set()


@dataclass(eq=False)
class Session:
    """What the app remembers of one visitor: open scenes, what was said, the last search.

    composite: the bands that the open scene is drawn with; None where it has none to choose from.
    address: where its visitor was last.
    """

    opened: OpenScene | None = None
    composite: str | None = None
    conversation: list[Message] = field(default_factory=list)
    attention: AnswerAttention | None = None
    pair: list[OpenScene] = field(default_factory=list)
    query: Asked = None
    results: tuple[SceneResult, ...] | None = None  # before the first search
    asked_by_link: str = ""
    turn: Turn | None = None
    used: float = field(default_factory=time.monotonic)
    address: str = ""

    @property
    def scenes(self) -> list[Scene]:
        """The scenes that are open, each once."""
        opened = (self.opened, *self.pair)
        return list({id(each.scene): each.scene for each in opened if each is not None}.values())

    def held_parts(self) -> dict[int, int]:
        """Return the bytes of each large thing it holds, by its identity: several may share one.

        Scenes, where an answer looked, what a search was for and found, and the conversation.
        """
        held: list[tuple[object, int]] = [(s, s.reflectance.nbytes) for s in self.scenes]
        if self.attention is not None:
            held.append(
                (self.attention, self.attention.maps.nbytes + self.attention.baseline.nbytes)
            )
        for query in self.query if isinstance(self.query, tuple) else (self.query,):
            if isinstance(query, Example):
                held.append((query, query.vector.nbytes))
        for result in self.results or ():
            if result.thumbnail is not None:
                width, height = result.thumbnail.size
                held.append((result.thumbnail, 3 * width * height))
        # Four bytes a character at most.
        held += [(message, 4 * len(message["content"])) for message in self.conversation]
        return {id(thing): size for thing, size in held}

    def require_opened(self) -> OpenScene:
        """Return the open scene. Raises ValueError where none is."""
        if self.opened is None:
            raise ValueError(NOTHING_OPEN)
        return self.opened

    def open_scene(self, opened: OpenScene) -> None:
        """Make this the scene that is asked about, and end what was said about the last one."""
        self.end_turn()
        self.used = time.monotonic()
        self.opened = opened
        self.composite = next(iter(opened.scene.available_composites()), None)
        self.conversation, self.attention = [], None

    def put_away(self) -> None:
        """Stop the answer under way and forget the scenes, what was said and what was found."""
        self.stop_turn()
        self.opened, self.pair, self.attention = None, [], None
        self.conversation, self.query, self.results = [], None, None

    def put_away_unless_used(self, since: float) -> None:
        """Put away what was not used after `since`, on the clock of `used`."""
        if self.used <= since:
            self.put_away()

    def begin_turn(self) -> Turn:
        """End the answer under way, if any, and make ready for the next one."""
        self.end_turn()
        self.turn = Turn()
        return self.turn

    def stop_turn(self) -> None:
        """Ask the answer under way to stop; what it has said stays."""
        if self.turn is not None:
            self.turn.stop.set()

    def end_turn(self) -> None:
        """Stop the answer under way and wait until no more of it can reach the page."""
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.stop.set()
            turn.quiet.wait(timeout=STOP_SECONDS)


# By the hash that Gradio gives each open page, so that a closed one can be told.
_sessions: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()
_holding: weakref.WeakSet[Session] = weakref.WeakSet()


def add_session(page: gr.Blocks) -> gr.State:
    """Add the visitor's session to the page; it is put away an hour after its last use.

    A page that is closed stops its answer at once, and is put away where it does not come back.
    """

    async def leave(request: gr.Request) -> None:
        session = _sessions.get(request.session_hash or "")
        if session is None:
            return
        session.stop_turn()
        loop = asyncio.get_running_loop()
        loop.call_later(CLOSED_SECONDS, session.put_away_unless_used, session.used)

    page.unload(leave)
    return gr.State(Session(), time_to_live=SESSION_SECONDS, delete_callback=Session.put_away)


def identify_client(session: Session, request: gr.Request) -> Client:
    """Whose request this is, remembered for when the page is closed."""
    user = request.session_hash or f"call-{id(request)}"
    _sessions[user] = session
    session.used = time.monotonic()
    session.address = address_of(request)
    return Client(user, session.address)


def address_of(request: gr.Request) -> str:
    """Where a request comes from, as the middleware found."""
    return request.client.host if request.client else ""


def check_place(place: object, count: int) -> int:
    """Return a place in a list of `count`, as an event told it. Raises ValueError for another."""
    if type(place) is not int or not 0 <= place < count:
        raise ValueError(f"there is no scene at place {shorten(place)} of this list")
    return place


def make_room(session: Session) -> None:
    """Put away the sessions that were unused longest, where all together hold too much memory.

    An address has a share of its own, so that one visitor does not close the scenes of others.
    session: who holds more from now on.
    """
    _holding.add(session)
    sessions = sorted(_holding, key=lambda each: each.used)
    alike = [each for each in sessions if each.address == session.address]
    freed = _put_away_oldest(alike, HELD_BYTES_PER_ADDRESS) if session.address else False
    freed = _put_away_oldest(sessions, HELD_BYTES) or freed
    if freed:
        trim_memory()


def _put_away_oldest(sessions: list[Session], limit: int) -> bool:
    """Put sessions away, first ones first, until the others hold `limit` bytes; whether any was."""
    parts = {id(each): each.held_parts() for each in sessions}
    sizes = {key: size for held in parts.values() for key, size in held.items()}
    holders = Counter(key for held in parts.values() for key in held)
    taken, freed = sum(sizes.values()), False
    for each in sessions:
        if taken <= limit:
            break
        # Examples are open to many, and closing one for some would gain nothing.
        alone = sum(size for key, size in parts[id(each)].items() if holders[key] == 1)
        if alone:
            taken -= alone
            each.end_turn()
            each.put_away()
            freed = True
    return freed


def tell_errors(action: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an action so that its errors reach people as one sentence and never as a traceback.

    ValueError and FileNotFoundError carry a sentence for the user; anything else is logged and
    told in general words. What the action would have changed stays as it is, and what should
    follow it does not. Works for functions and for generators.
    """
    if inspect.isgeneratorfunction(action):

        @functools.wraps(action)
        def guarded(*args: Any, **named: Any) -> Any:
            try:
                yield from action(*args, **named)
            except gr.Error:
                raise  # told already, by an action that this one is made of
            except Exception as error:
                raise tell_error(error) from None

    else:

        @functools.wraps(action)
        def guarded(*args: Any, **named: Any) -> Any:
            try:
                return action(*args, **named)
            except gr.Error:
                raise
            except Exception as error:
                raise tell_error(error) from None

    return guarded


def page_only(action: Callable[..., Any]) -> Callable[..., Any]:
    """Keep an action that needs an open page off the list of MCP tools; API clients may call it.

    MCP calls have no session, so what such a tool opened would be gone with the next call.
    """
    action._mcp_type = "page"  # noqa: SLF001  Gradio lists as tools what is called "tool", or nothing
    return action


def tell_error(error: Exception) -> gr.Error:
    """Show a sentence, and return the error that ends the action (and tells an API's client).

    Where no page waits, as in calls past the queue, there is nobody to show it to.
    """
    if isinstance(error, ValueError | FileNotFoundError):
        sentence = _as_sentence(str(error))
    else:
        logger.error("An action of the app failed", exc_info=error)
        sentence = UNEXPECTED
    if LocalContext.event_id.get(None) is not None:
        gr.Warning(html.escape(sentence, quote=False), duration=NOTICE_SECONDS)
    return gr.Error(sentence, visible=False, print_exception=False)


def shorten(value: object) -> str:
    """What a client sent, as an error repeats it: cut at SHOWN_CHARACTERS."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    return repr(cut) if isinstance(value, str) else cut


def _as_sentence(message: str) -> str:
    return message[:1].upper() + message[1:].rstrip(". ") + "."
