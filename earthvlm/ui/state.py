"""What the two tabs share: one visitor's session, and how errors are told to people."""

from __future__ import annotations

import functools
import html
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.retrieval import SceneResult
from earthvlm.scene import Scene

logger = logging.getLogger(__name__)

# One model on a few cores: whatever runs it waits for its turn under this name.
MODEL_QUEUE = "model"
SESSION_SECONDS = 3600
NOTICE_SECONDS = 20
STOP_SECONDS = 10  # a model that answers stops within a token
NOTHING_OPEN = "No scene is open (an hour without use closes it): upload one or choose an example."
UNEXPECTED = "That did not work, and the reason has been logged; try again, or another scene."


class Turn:
    """One answer: a way to stop it, and to wait until it shows no more.

    `number` tells a visitor's answers apart.
    """

    def __init__(self, number: int) -> None:
        self.number = number
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
    """What the app remembers of one visitor: the open scene, last search, answer under way."""

    scene: Scene | None = None
    query: str | Scene | None = None
    results: tuple[SceneResult, ...] = ()
    turn: Turn | None = None
    turns: int = 0

    def require_scene(self) -> Scene:
        """Return the open scene. Raises ValueError where none is."""
        if self.scene is None:
            raise ValueError(NOTHING_OPEN)
        return self.scene

    def open_scene(self, scene: Scene) -> None:
        """Make this the scene that is asked about, and end the answer about the last one."""
        self.end_turn()
        self.scene = scene

    def begin_turn(self) -> Turn:
        """End the answer under way, if any, and make ready for the next one."""
        self.end_turn()
        self.turns += 1
        self.turn = Turn(self.turns)
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


def add_session() -> gr.State:
    """Add the visitor's session to the page; it is put away an hour after its last use."""
    return gr.State(Session(), time_to_live=SESSION_SECONDS, delete_callback=Session.stop_turn)


def tell_errors(action: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an action so that its errors reach people as one sentence and never as a traceback.

    ValueError and FileNotFoundError carry a sentence for the user; anything else is logged and
    told in general words. What the action would have changed stays as it is, and what should
    follow it does not. Works for functions and for generators.
    """
    if inspect.isgeneratorfunction(action):

        @functools.wraps(action)
        def guarded(*args: Any) -> Any:
            try:
                yield from action(*args)
            except Exception as error:
                raise _tell(error) from error

    else:

        @functools.wraps(action)
        def guarded(*args: Any) -> Any:
            try:
                return action(*args)
            except Exception as error:
                raise _tell(error) from error

    return guarded


def _tell(error: Exception) -> gr.Error:
    """Show a sentence, and return the error that ends the action (and tells an API's client)."""
    if isinstance(error, ValueError | FileNotFoundError):
        sentence = _as_sentence(str(error))
    else:
        logger.error("An action of the app failed", exc_info=error)
        sentence = UNEXPECTED
    gr.Warning(html.escape(sentence, quote=False), duration=NOTICE_SECONDS)
    return gr.Error(sentence, visible=False, print_exception=False)


def _as_sentence(message: str) -> str:
    return message[:1].upper() + message[1:].rstrip(". ") + "."
