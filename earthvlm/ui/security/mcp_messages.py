"""What an MCP client may send: a bounded list of methods, three tools, and flat arguments.

Gradio's MCP endpoint calls the page as a client on this machine would, and turns a dictionary that
looks like a file into an upload from this machine's disk; it runs tools that it does not list; and
`prompts/get` runs the last tool of its table, whatever prompt is asked for. Messages are read here,
and what was read is what is passed on.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from gradio.utils import get_space

from earthvlm.ui.errors import shorten

if TYPE_CHECKING:
    from gradio.mcp import GradioMCPServer

TOOLS = ("describe_scene", "ask_scene", "search_scenes")
METHODS = frozenset(
    (
        "initialize",
        "ping",
        "logging/setLevel",
        "tools/list",
        "tools/call",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
    )
)
# JSON-RPC 2.0, section 5.1.
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602


class RefusedMessageError(ValueError):
    """A message that is not passed on: its JSON-RPC code, its request's id, and a sentence."""

    def __init__(self, code: int, sentence: str, request_id: Any = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.request_id = request_id if isinstance(request_id, str | int) else None

    def to_json(self) -> bytes:
        """Return the answer that JSON-RPC has for it."""
        error = {"code": self.code, "message": str(self)}
        return json.dumps({"jsonrpc": "2.0", "id": self.request_id, "error": error}).encode()


def tool_names() -> tuple[str, ...]:
    """The tools as MCP lists them: on a Space, Gradio puts the Space's name before each."""
    space = get_space()
    prefix = f"{space.split('/')[-1]}_" if space else ""
    return tuple(re.sub(r"[^a-zA-Z0-9]", "_", prefix + tool) for tool in TOOLS)


def keep_public_tools(server: GradioMCPServer) -> None:
    """Take every tool but the public ones out of the table that MCP calls look tools up in."""
    names = tool_names()
    server.tool_to_endpoint = {
        name: endpoint for name, endpoint in server.tool_to_endpoint.items() if name in names
    }


def check_messages(body: bytes) -> bytes:
    """Return the body of an MCP request as it is passed on. Raises RefusedMessageError."""
    try:
        message = json.loads(body, parse_constant=_refuse_constant)
        checked = json.dumps(message, ensure_ascii=False).encode()  # no half of a letter either
    except (ValueError, RecursionError):
        raise RefusedMessageError(PARSE_ERROR, "The body is not a JSON message.") from None
    _check_message(message)
    return checked


def _check_message(message: Any) -> None:
    known = message if isinstance(message, dict) else {}
    method, request_id = known.get("method"), known.get("id")
    if not isinstance(method, str):
        sentence = "A message is an object with a method."
        raise RefusedMessageError(INVALID_REQUEST, sentence, request_id)
    if method not in METHODS and not method.startswith("notifications/"):
        sentence = f"There is no method {shorten(method)} here."
        raise RefusedMessageError(METHOD_NOT_FOUND, sentence, request_id)
    _check_types(known, request_id)
    if method != "tools/call":
        return
    given = known.get("params")
    parameters = given if isinstance(given, dict) else {}
    name = parameters.get("name")
    if name not in tool_names():
        sentence = f"There is no tool {shorten(name)}: the tools are {', '.join(tool_names())}."
        raise RefusedMessageError(INVALID_PARAMS, sentence, request_id)
    arguments = parameters.get("arguments") or {}
    if not isinstance(arguments, dict) or any(
        isinstance(value, dict | list) for value in arguments.values()
    ):
        sentence = "A tool's arguments are text and numbers, each under its name."
        raise RefusedMessageError(INVALID_PARAMS, sentence, request_id)


def _check_types(message: dict[str, Any], request_id: Any) -> None:
    """Refuse what MCP's library would refuse, which logs about ninety lines for each message."""
    try:
        from mcp.types import ClientNotification, ClientRequest, JSONRPCMessage, JSONRPCRequest
    except ImportError:  # then nothing here reads MCP messages
        return
    try:
        read = JSONRPCMessage.model_validate(message).root
        kind = ClientRequest if isinstance(read, JSONRPCRequest) else ClientNotification
        kind.model_validate(read.model_dump(by_alias=True, mode="json", exclude_none=True))
    except ValueError:
        sentence = f"This is not a message of the method {shorten(message['method'])}."
        raise RefusedMessageError(INVALID_PARAMS, sentence, request_id) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
