"""An HTTP server with the endpoints of OpenAI's API that clients of such servers use.

`/v1/chat/completions` answers about one image, given as a data URI or as the id of an uploaded
file; `/v1/embeddings` embeds texts and images in one space; `/v1/files` takes uploads. Addresses
are never fetched, and files are decoded in child processes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation.sampling import check_prompt
from earthvlm.models.language.chat_templates import Message
from earthvlm.models.text_encoder import SENTENCE_DIM, embed_sentences
from earthvlm.scenes.isolated_reader import IsolatedReader
from earthvlm.scenes.scene import Scene
from earthvlm.serving.openai_messages import (
    MAX_CHARACTERS,
    EventStream,
    describe_error,
    read_messages,
    read_number,
    stream_events,
)
from earthvlm.serving.request_queue import QueueFull, RequestQueue, run_in

MAX_BODY_BYTES = 64 << 20
MAX_FILES = 64  # the oldest upload is deleted beyond this number
MAX_TOKENS = 512
MAX_INPUTS = 256  # of one request for embeddings
UNEXPECTED = "That did not work, and the reason has been logged."
DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.ASCII)


class OpenAIServer:
    """The endpoints, answered by one bridge, one request at a time.

    Args:
        bridge: answers and embeds.
        name: of the model in answers.
        api_key: what clients send as a bearer token; None lets everybody in.
    """

    def __init__(self, bridge: OlmoEarthVLMBridge, name: str, api_key: str | None = None) -> None:
        self.bridge, self.name, self.api_key = bridge, name, api_key
        self.reader = IsolatedReader()
        self.queue = RequestQueue(one_per_user=False)
        self._folder = tempfile.TemporaryDirectory(prefix="earthvlm-files-")
        self._files: OrderedDict[str, dict[str, Any]] = OrderedDict()
        model_thread = ThreadPoolExecutor(1, "earthvlm-model")
        self._stream: Callable[..., Iterator[str]] = run_in(model_thread, bridge.stream)
        self._embed: Callable[..., np.ndarray] = run_in(model_thread, bridge.embed)

    def build_app(self) -> Starlette:
        """Return the application, for any ASGI server."""
        routes = [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{name:path}", self.show_model),
            Route("/v1/chat/completions", self.complete_chat, methods=["POST"]),
            Route("/v1/embeddings", self.create_embeddings, methods=["POST"]),
            Route("/v1/files", self.upload_file, methods=["POST"]),
            Route("/v1/files", self.list_files),
            Route("/v1/files/{file_id}", self.show_file),
            Route("/v1/files/{file_id}", self.delete_file, methods=["DELETE"]),
        ]
        handlers: dict[Any, Any] = {
            HTTPException: _answer_http_error,
            QueueFull: lambda request, error: _error(429, str(error), "rate_limit_exceeded"),
            ValueError: lambda request, error: _error(400, str(error), "invalid_request_error"),
            FileNotFoundError: lambda request, error: _error(404, str(error), "not_found"),
            # The server logs it, too.
            Exception: lambda request, error: _error(500, UNEXPECTED, "server_error"),
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    async def list_models(self, request: Request) -> Response:
        """Answer with the one model."""
        self._check_key(request)
        return JSONResponse({"object": "list", "data": [self._describe_model()]})

    async def show_model(self, request: Request) -> Response:
        """Describe the model."""
        self._check_key(request)
        if request.path_params["name"] != self.name:
            raise FileNotFoundError(f"There is no model {request.path_params['name'][:80]!r}.")
        return JSONResponse(self._describe_model())

    async def complete_chat(self, request: Request) -> Response:
        """Answer the last message about the image of the conversation, whole or streamed."""
        body = await self._read_body(request)
        images, messages = read_messages(body.get("messages"))
        if len(images) != 1:
            raise ValueError(f"A conversation is about one image; this one has {len(images)}.")
        check_prompt(messages[-1]["content"])
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or MAX_TOKENS
        length = min(read_number(limit, "max_tokens", 1, None), MAX_TOKENS)
        sampling = (
            read_number(body.get("temperature", 0.0), "temperature", 0, 2),
            read_number(body.get("top_p", 1.0), "top_p", 0, 1) or 1.0,
        )
        scene = await run_in_threadpool(self._open, images[0])
        pieces = self._answer(scene, messages, int(length), sampling)
        about = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": self.name}
        if body.get("stream"):
            events = stream_events(about, pieces, lambda text: self._why_ended(text, length))
            return EventStream(events)
        text = await run_in_threadpool(lambda: "".join(pieces).strip())
        message = {"role": "assistant", "content": text}
        why = self._why_ended(text, length)
        choice = {"index": 0, "message": message, "finish_reason": why, "logprobs": None}
        asked = " ".join(message["content"] for message in messages)
        usage = self._count(asked, text)
        return JSONResponse(
            about | {"object": "chat.completion", "choices": [choice], "usage": usage}
        )

    async def create_embeddings(self, request: Request) -> Response:
        """Embed texts and images: unit vectors of 384 numbers, in one space."""
        body = await self._read_body(request)
        given = body.get("input")
        inputs = [given] if isinstance(given, str) else given
        if not isinstance(inputs, list) or not 1 <= len(inputs) <= MAX_INPUTS:
            raise ValueError(f"input is a text or a list of 1 to {MAX_INPUTS} texts.")
        if not all(isinstance(each, str) and each.strip() for each in inputs):
            raise ValueError("input holds texts, data URIs and file ids, none of them empty.")
        texts = [each for each in inputs if not each.startswith("data:")]
        if sum(map(len, texts)) > MAX_CHARACTERS:
            raise ValueError(f"The texts of input have at most {MAX_CHARACTERS:,} characters.")
        vectors = await run_in_threadpool(self._embed_inputs, inputs)
        as_base64 = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _to_base64(vector) if as_base64 else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        tokens = self._count(" ".join(texts), "")
        usage = {name: tokens[name] for name in ("prompt_tokens", "total_tokens")}
        return JSONResponse({"object": "list", "data": data, "model": self.name, "usage": usage})

    async def upload_file(self, request: Request) -> Response:
        """Keep an uploaded scene until the server ends or newer uploads take its place."""
        self._check_key(request)
        declared = request.headers.get("content-length", "")
        if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
            raise HTTPException(413, f"A file has at most {MAX_BODY_BYTES >> 20} MB.")
        async with request.form(max_files=1) as form:
            upload = form.get("file")
            if not isinstance(upload, UploadFile):
                raise ValueError("The form has no file: send one as its field file.")
            content = await upload.read()
            name = Path(upload.filename or "scene").name
            purpose = str(form.get("purpose") or "vision")
        file_id = f"file-{uuid4().hex}"
        path = Path(self._folder.name) / f"{file_id}{Path(name).suffix[:8]}"
        path.write_bytes(content)
        entry = {"id": file_id, "object": "file", "bytes": len(content), "filename": name}
        entry |= {"created_at": int(time.time()), "purpose": purpose, "status": "processed"}
        self._files[file_id] = entry | {"path": path}
        while len(self._files) > MAX_FILES:
            self._remove(next(iter(self._files)))
        return JSONResponse(entry)

    async def list_files(self, request: Request) -> Response:
        """List the uploads in one page; `after` is the id of the last one that a client has."""
        self._check_key(request)
        ids = list(self._files)
        after = request.query_params.get("after")
        shown = ids[ids.index(after) + 1 :] if after in ids else ids
        data = [_without_path(self._files[file_id]) for file_id in shown]
        return JSONResponse({"object": "list", "data": data, "has_more": False})

    async def show_file(self, request: Request) -> Response:
        """Describe an upload."""
        self._check_key(request)
        return JSONResponse(_without_path(self._find(request.path_params["file_id"])))

    async def delete_file(self, request: Request) -> Response:
        """Delete an upload."""
        self._check_key(request)
        file_id = self._find(request.path_params["file_id"])["id"]
        self._remove(file_id)
        return JSONResponse({"id": file_id, "object": "file", "deleted": True})

    def _check_key(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers.get("host"):
            raise HTTPException(403, "Pages of other sites may not use this server.")
        if self.api_key is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.api_key.encode()):
            raise HTTPException(401, "The API key is missing or wrong.")

    async def _read_body(self, request: Request) -> dict[str, Any]:
        """Return the JSON of a request to this model. Raises HTTPException and ValueError."""
        self._check_key(request)
        pieces, size = [], int(request.headers.get("content-length") or 0)
        refusal = HTTPException(413, f"A request has at most {MAX_BODY_BYTES >> 20} MB.")
        if size > MAX_BODY_BYTES:
            raise refusal
        size = 0
        async for piece in request.stream():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise refusal
        try:
            values = json.loads(b"".join(pieces))
        except (ValueError, RecursionError):
            raise ValueError("The body of the request is not JSON.") from None
        if not isinstance(values, dict):
            raise ValueError("The body of the request is not a JSON object.")
        wanted = values.get("model", self.name)
        if wanted != self.name:
            raise FileNotFoundError(
                f"There is no model {str(wanted)[:80]!r}: this server has {self.name!r}."
            )
        return values

    def _describe_model(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "earthvlm"}

    def _find(self, file_id: str) -> dict[str, Any]:
        if file_id not in self._files:
            raise FileNotFoundError(f"There is no file {file_id[:80]!r}: upload it to /v1/files.")
        return self._files[file_id]

    def _remove(self, file_id: str) -> None:
        self._files.pop(file_id)["path"].unlink(missing_ok=True)

    def _open(self, image: str) -> Scene:
        """Open a data URI or an upload. Raises ValueError and FileNotFoundError."""
        if image.startswith(("http:", "https:", "ftp:")):
            raise ValueError("Addresses are not fetched: send a data URI or upload a file.")
        if not image.startswith("data:"):
            return self.reader.open(self._find(image)["path"])
        match = DATA_URI.match(image)
        try:
            content = base64.b64decode(image[match.end() :], validate=True) if match else b""
        except binascii.Error:
            content = b""
        if not content:
            raise ValueError("The data URI does not have the form data:TYPE;base64,DATA.")
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            path = Path(folder) / "image"
            path.write_bytes(content)
            return self.reader.open(path)

    def _answer(
        self, scene: Scene, messages: Sequence[Message], length: int, sampling: tuple[float, float]
    ) -> Generator[str, None, None]:
        """Join the queue, and return the pieces of the answer. Raises QueueFull at once."""
        ticket = self.queue.join(uuid4().hex)

        def stream() -> Generator[str, None, None]:
            try:
                for _ in self.queue.wait(ticket):
                    pass
                yield from self._stream(scene, messages, length, *sampling)
            finally:
                self.queue.leave(ticket)

        return stream()

    def _why_ended(self, text: str, length: int) -> str:
        """Return OpenAI's reason: whether an answer ended by itself or at its largest length."""
        answered = len(self.bridge.language.tokenizer(text, add_special_tokens=False).input_ids)
        return "length" if answered >= length else "stop"

    def _embed_inputs(self, inputs: Sequence[str]) -> np.ndarray:
        is_image = [each.startswith("data:") or each in self._files for each in inputs]
        vectors = np.zeros((len(inputs), SENTENCE_DIM), np.float32)
        texts = [each for each, image in zip(inputs, is_image, strict=True) if not image]
        images = [each for each, image in zip(inputs, is_image, strict=True) if image]
        mask = np.array(is_image)
        if texts:
            vectors[~mask] = embed_sentences(texts)
        if images:
            scenes = [self._open(each) for each in images]
            with self.queue.turn(uuid4().hex):
                vectors[mask] = self._embed(scenes)
        return vectors

    def _count(self, prompt: str, answer: str) -> dict[str, int]:
        """Count the tokens of texts; the scene's are not counted."""
        tokenizer = self.bridge.language.tokenizer
        asked, answered = (len(tokenizer(text).input_ids) for text in (prompt, answer))
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        return dict(zip(names, (asked, answered, asked + answered), strict=True))


def _error(status: int, message: str, kind: str) -> Response:
    return JSONResponse(describe_error(message, kind), status_code=status)


async def _answer_http_error(request: Request, error: HTTPException) -> Response:  # noqa: ARG001
    kind = "authentication_error" if error.status_code == 401 else "invalid_request_error"
    return _error(error.status_code, error.detail, kind)


def _without_path(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "path"}


def _to_base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
