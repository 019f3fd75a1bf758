"""How errors reach people: as one sentence, never as a traceback."""

from __future__ import annotations

import html
import logging

import gradio as gr
from gradio.context import LocalContext

logger = logging.getLogger(__name__)

WARNING_SECONDS = 20
SHOWN_CHARACTERS = 80  # of a value that a client sent, when an error repeats it
UNEXPECTED = "That did not work, and the reason has been logged; try again, or another scene."


def report_error(error: Exception) -> gr.Error:
    """Show an error on the page as one sentence, and return the gr.Error that ends the action.

    ValueError and FileNotFoundError carry a sentence for the user. Any other error is logged, and
    the user reads UNEXPECTED. API clients get the sentence from the gr.Error.
    """
    if isinstance(error, ValueError | FileNotFoundError):
        sentence = _as_sentence(str(error))
    else:
        logger.error("An action of the app failed", exc_info=error)
        sentence = UNEXPECTED
    # Calls that pass the queue have no event, and so no page that could show the warning.
    if LocalContext.event_id.get(None) is not None:
        gr.Warning(html.escape(sentence, quote=False), duration=WARNING_SECONDS)
    return gr.Error(sentence, visible=False, print_exception=False)


def shorten(value: object) -> str:
    """Return a value from a client as an error repeats it, cut at SHOWN_CHARACTERS."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    return repr(cut) if isinstance(value, str) else cut


def _as_sentence(message: str) -> str:
    return message[:1].upper() + message[1:].rstrip(". ") + "."
