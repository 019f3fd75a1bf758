"""Checks what MCP clients send: a list of allowed methods, three tools, and flat arguments.

Gradio's MCP endpoint calls the page like a client on this machine, and turns a dictionary that
looks like a file into an upload from this machine's disk. It runs tools that it does not list, and
`prompts/get` runs the last tool of its table, whatever prompt it names. So messages are parsed
here, and Gradio gets them as they were parsed.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gradio.utils import get_space

from earthvlm.ui.errors import shorten
from earthvlm.ui.security.asgi import App, Message, Receive, Send, client_address, send_answer
from earthvlm.ui.security.origins import name_caller

if TYPE_CHECKING:
    from gradio.mcp import GradioMCPServer

MCP_PATH = "/gradio_api/mcp"
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
    """Refuses a message, with JSON-RPC's code, the id of the request, and a sentence."""

    def __init__(self, code: int, sentence: str, request_id: Any = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.request_id = request_id if isinstance(request_id, str | int) else None

    def to_json(self) -> bytes:
        """Return the JSON-RPC answer."""
        error = {"code": self.code, "message": str(self)}
        return json.dumps({"jsonrpc": "2.0", "id": self.request_id, "error": error}).encode()


def tool_names() -> tuple[str, ...]:
    """Return the tools' names in MCP: on a Space, Gradio puts the Space's name before each."""
    space = get_space()
    prefix = f"{space.split('/')[-1]}_" if space else ""
    return tuple(re.sub(r"[^a-zA-Z0-9]", "_", prefix + tool) for tool in TOOLS)


def keep_public_tools(server: GradioMCPServer) -> None:
    """Remove every tool but the public ones from the table of MCP's tools."""
    names = tool_names()
    server.tool_to_endpoint = {
        name: endpoint for name, endpoint in server.tool_to_endpoint.items() if name in names
    }


def read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return what a function does and returns, and what each argument is.

    Gradio keeps the first line alone of what a docstring says of an argument.
    """
    text = inspect.getdoc(function) or ""
    summary, _, rest = text.partition("Args:\n")
    arguments, _, returns = rest.partition("\nReturns:\n")
    described = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    whole = f"{summary} Returns: {returns}." if returns else summary
    return " ".join(whole.split()), {name: " ".join(told.split()) for name, told in described}


def return_structured_results(server: GradioMCPServer) -> None:
    """Let tools answer with JSON and say its schema; Gradio writes what Python prints.

    Gradio also reads the files that a result seems to name, which this replaces.
    """
    types, handlers = server.types, server.mcp_server.request_handlers
    list_tools, call_tool = (
        handlers[kind] for kind in (types.ListToolsRequest, types.CallToolRequest)
    )

    def write(data: list[Any], root_url: str) -> list[Any]:  # noqa: ARG001  Gradio gives two
        return [types.TextContent(type="text", text=json.dumps(each)) for each in data]

    async def list_with_schemas(request: Any) -> Any:
        answer = await list_tools(request)
        for tool in answer.root.tools:
            endpoint = server.get_block_fn_from_endpoint_name(server.tool_to_endpoint[tool.name])
            schema = endpoint.outputs[0].api_info()
            tool.outputSchema = schema if schema.get("type") == "object" else None
        return answer

    async def call_with_structure(request: Any) -> Any:
        answer = await call_tool(request)
        if not answer.root.isError:
            result = json.loads(answer.root.content[0].text)
            answer.root.structuredContent = result if isinstance(result, dict) else None
        return answer

    server.get_fn_description = lambda endpoint, tool_name: read_docstring(endpoint.fn)
    server.postprocess_output_data = write
    handlers[types.ListToolsRequest] = list_with_schemas
    handlers[types.CallToolRequest] = call_with_structure


class McpMessages:
    """Middleware that refuses MCP messages that are not allowed, and says who sent the others.

    It stands behind RateLimits, because reading a message takes time.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer a refused message with JSON-RPC's error."""
        is_mcp = scope["type"] == "http" and scope["path"].startswith(MCP_PATH)
        if not is_mcp or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            body = check_messages(await _read_body(receive))
        except RefusedMessageError as error:
            # Clients of the older transport read answers elsewhere, so they see the status alone.
            status = 400 if "/messages" in scope["path"] else 200
            close = ((b"connection", b"close"),)
            await send_answer(send, status, error.to_json(), b"application/json", close)
            return
        replaced = (b"content-length", b"transfer-encoding")
        headers = [pair for pair in scope["headers"] if pair[0].lower() not in replaced]
        headers += [
            (b"content-length", str(len(body)).encode()),
            name_caller(client_address(scope)),
        ]
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app({**scope, "headers": headers}, replay, send)


async def _read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def check_messages(body: bytes) -> bytes:
    """Parse the body of an MCP request, and return it as JSON. Raises RefusedMessageError."""
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
