"""A page that checks every call, by page, API or MCP, before Gradio runs it."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import LocalContext
from gradio.utils import get_type_hints
from starlette.middleware import Middleware

from earthvlm.ui.basemap import read_basemap
from earthvlm.ui.errors import report_error, shorten
from earthvlm.ui.page_parts import serve_parts
from earthvlm.ui.security.compression import PageCompression
from earthvlm.ui.security.connections import bound_connections
from earthvlm.ui.security.mcp_messages import (
    McpMessages,
    keep_public_tools,
    return_structured_results,
)
from earthvlm.ui.security.middleware import Guard
from earthvlm.ui.security.page_policy import PagePolicy, find_scripts
from earthvlm.ui.security.page_states import forget_unattended
from earthvlm.ui.security.rate_limits import RateLimits
from earthvlm.ui.security.unused_player import leave_out_player
from earthvlm.ui.security.upload_limits import UploadLimits

if TYPE_CHECKING:
    from gradio.block_function import BlockFunction
    from gradio.http_server import Server
    from gradio.mcp import GradioMCPServer
    from gradio.routes import App

NO_UPLOAD = "only files that were uploaded to this app, at /gradio_api/upload, are opened"
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "text"),
    "number": ((int, float), "a number"),
    "integer": ((int,), "a whole number"),
    "boolean": ((bool,), "true or false"),
}


class CheckedPage(gr.Blocks):
    """Blocks behind the middleware that check arguments, report errors and give MCP three tools.

    Gradio alone answers a wrong argument with `{"error": null}` and writes a traceback.
    """

    _server: Server | None = None

    @property
    def mcp_server_obj(self) -> GradioMCPServer | None:
        """The MCP server, with the public tools alone in its table, however it was launched."""
        return self._mcp_server

    @mcp_server_obj.setter
    def mcp_server_obj(self, server: GradioMCPServer | None) -> None:
        if server is not None:
            keep_public_tools(server)
            return_structured_results(server)
        self._mcp_server = server

    @property
    def server(self) -> Server | None:
        """The HTTP server, which bounds its connections."""
        return self._server

    @server.setter
    def server(self, server: Server | None) -> None:
        if server is not None:
            bound_connections(server)
        self._server = server

    def launch(self, *args: Any, **options: Any) -> Any:
        """Serve the page as Gradio does; the middleware alone finds a request's address."""
        # Otherwise uvicorn believes the address that any program on this machine forwards.
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
        return super().launch(*args, **options)

    @property
    def app(self) -> App:
        """The server's application, with the middleware before everything that Gradio adds."""
        return self._app

    @app.setter
    def app(self, app: App) -> None:
        # Inside of what Gradio has added; the last one sees a page first.
        heads = [self.head, *(getattr(block, "head", None) for block in self.blocks.values())]
        inserted = [script for head in heads if head for script in find_scripts(head.encode())]
        app.user_middleware.append(Middleware(PageCompression, quality=5))
        basemap = read_basemap()
        pictures = basemap.origin if basemap else ""
        app.user_middleware.append(Middleware(PagePolicy, inserted=inserted, pictures=pictures))
        serve_parts(app)
        leave_out_player(app)
        # The last one added comes first.
        forget_unattended(app)
        app.add_middleware(UploadLimits)
        app.add_middleware(McpMessages)
        app.add_middleware(RateLimits)
        app.add_middleware(Guard)
        self._app = app

    async def process_api(
        self, block_fn: BlockFunction | int, inputs: list[Any], *args: Any, **options: Any
    ) -> dict[str, Any]:
        """Run a handler as Gradio does. Raises gr.Error with one sentence for every error."""
        LocalContext.blocks.set(self)
        LocalContext.event_id.set(options.get("event_id"))
        fn = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        try:
            if options.get("iterator") is None:
                check_event(fn.fn, options.get("event_data"))
            return await super().process_api(fn, inputs, *args, **options)
        except gr.Error:
            raise
        except Exception as error:
            raise report_error(error) from None

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """Prepare a handler's arguments. Raises ValueError where one does not fit."""
        inputs = check_arguments(block_fn, inputs, state)
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except gr.Error as error:  # which Gradio would print with a traceback
            raise ValueError(error.message) from None
        except Exception:
            # All other arguments were checked, so this is a file. Gradio's message names paths of
            # this machine.
            raise ValueError(NO_UPLOAD) from None


def check_arguments(block_fn: BlockFunction, inputs: Sequence[Any], state: Any) -> list[Any]:
    """Return the arguments of a call with room for the session that the server adds.

    Raises ValueError, in one sentence, where they are too few, too many, or do not fit.
    """
    blocks = block_fn.inputs
    taken = [block for block in blocks if not block.skip_api]
    names = _name_arguments(block_fn.fn, len(blocks))
    given = list(inputs)
    if len(given) == len(taken):
        pending = iter(given)
        given = [None if block.skip_api else next(pending) for block in blocks]
    if len(given) != len(blocks):
        listed = [n for n, b in zip(names, blocks, strict=True) if not b.skip_api]
        raise ValueError(
            f"/{block_fn.api_name} takes {len(taken)} arguments"
            f"{' (' + ', '.join(listed) + ')' if listed else ''}; {len(given)} were given"
        )
    for name, block, value in zip(names, blocks, given, strict=True):
        if block.skip_api or getattr(block, "data_model", None):
            continue  # the visitor's own session, which no client sends; files
        own = state[block._id] if state is not None and block._id in state else block
        _check_argument(name, own, value)
    return given


def _check_argument(name: str, block: Any, value: Any) -> None:
    kind = block.api_info()
    if "enum" in kind:
        if value not in kind["enum"] or not isinstance(value, str):
            choices = ", ".join(map(str, kind["enum"]))
            raise ValueError(f"the argument {name} is one of {choices}; {shorten(value)} was given")
        return
    types, called = _KINDS[kind["type"]]
    low, high = getattr(block, "minimum", None), getattr(block, "maximum", None)
    is_kind = isinstance(value, types) and isinstance(value, bool) == (types == (bool,))
    if is_kind and kind["type"] == "string":
        is_kind = _is_whole_text(value)
    elif is_kind:
        is_kind = math.isfinite(value) and (low is None or low <= value <= high)
    if not is_kind:
        bounds = "" if low is None else f" from {low:g} to {high:g}"
        raise ValueError(f"the argument {name} is {called}{bounds}; {shorten(value)} was given")


def _is_whole_text(value: str) -> bool:
    """Whether a text holds no half of a letter, which cannot be written anywhere."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_event(action: Callable[..., Any] | None, event_data: Any) -> None:
    """Raise ValueError where a handler needs an event of the page and got none."""
    hints = get_type_hints(action) if action is not None else {}
    for kind in hints.values():
        if inspect.isclass(kind) and issubclass(kind, gr.EventData):
            try:
                data = dict(event_data._data)
                if kind is not gr.EventData:
                    kind(None, data)  # type: ignore[call-arg]  # gradio is skipped, so not known
            except (AttributeError, KeyError, TypeError, ValueError):
                raise ValueError(
                    "this call needs an event of the page, such as a click, and has none"
                ) from None


def _name_arguments(action: Callable[..., Any] | None, count: int) -> list[str]:
    """Return the names of a handler's arguments, without those that Gradio adds."""
    names = list(inspect.signature(action).parameters) if action is not None else []
    named = [name for name in names if name not in ("request", "event")][:count]
    return named + [f"argument {number + 1}" for number in range(len(named), count)]
