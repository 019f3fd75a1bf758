"""The server for clients of OpenAI's API, asked by that client."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
import uvicorn

from earthvlm.models.text_encoder import embed_sentences
from earthvlm.scenes.scene import Scene
from earthvlm.serving.openai_api import MAX_BODY_BYTES, OpenAIServer
from tests.conftest import random_scene
from tests.support.ports import free_port

KEY = "a-key-of-this-test"


@pytest.fixture
def client(tiny_bridge) -> Iterator[openai.OpenAI]:
    server = OpenAIServer(tiny_bridge, "tiny", KEY)
    port = free_port()
    config = uvicorn.Config(server.build_app(), port=port, log_level="error")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0)
    running.should_exit = True
    thread.join()
    server.reader.close()


@pytest.fixture
def scene_file(tmp_path) -> Path:
    random_scene().save(tmp_path / "scene.tif")
    return tmp_path / "scene.tif"


def data_uri(path: Path) -> str:
    return f"data:image/tiff;base64,{base64.b64encode(path.read_bytes()).decode()}"


def ask(text: str, image: str) -> list[dict]:
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": text}]
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]


def test_chat_answers_about_a_data_uri(client, tiny_bridge, scene_file):
    assert [model.id for model in client.models.list()] == ["tiny"]
    messages = ask("Is there water?", data_uri(scene_file))
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=8)
    expected = tiny_bridge.generate(Scene.open(scene_file), "Is there water?", 8)
    assert answer.choices[0].message.content == expected
    assert answer.usage.total_tokens >= answer.usage.prompt_tokens > 0
    pieces = client.chat.completions.create(
        model="tiny", messages=messages, max_completion_tokens=8, stream=True
    )
    chunks = list(pieces)
    # A random bridge does not end its answer before the largest length.
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason == "length"
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert joined.strip() == expected


def test_a_client_that_leaves_frees_the_model(client, scene_file):
    messages = ask("Is there water?", data_uri(scene_file))
    for pieces_read in (1, 2, 3):
        pieces = client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=400, stream=True
        )
        for _ in range(pieces_read):
            next(pieces)
        pieces.close()
    patient = client.with_options(timeout=60)
    answer = patient.chat.completions.create(model="tiny", messages=messages, max_tokens=4)
    assert answer.choices[0].message.content


def test_uploaded_files_can_be_asked_about(client, tiny_bridge, scene_file):
    uploaded = client.files.create(file=scene_file, purpose="vision")
    assert uploaded.filename == "scene.tif" and uploaded.bytes == scene_file.stat().st_size
    assert [file.id for file in client.files.list()] == [uploaded.id]
    expected = tiny_bridge.generate(Scene.open(scene_file), "Water?", 8)
    part = {"type": "file", "file": {"file_id": uploaded.id}}
    for messages in (
        ask("Water?", uploaded.id),
        [{"role": "user", "content": [part, {"type": "text", "text": "Water?"}]}],
    ):
        answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=8)
        assert answer.choices[0].message.content == expected
    assert client.files.delete(uploaded.id).deleted
    with pytest.raises(openai.NotFoundError, match="There is no file"):
        client.chat.completions.create(model="tiny", messages=ask("Water?", uploaded.id))


def test_texts_and_images_are_embedded_in_one_space(client, tiny_bridge, scene_file):
    inputs = ["a lake", data_uri(scene_file)]
    found = client.embeddings.create(model="tiny", input=inputs)  # the client asks for base64
    vectors = np.array([each.embedding for each in found.data])
    np.testing.assert_allclose(vectors[0], embed_sentences(["a lake"])[0], atol=1e-5)
    expected = tiny_bridge.embed([Scene.open(scene_file)])[0]
    np.testing.assert_allclose(vectors[1], expected, atol=1e-5)
    plain = client.embeddings.create(model="tiny", input="a lake", encoding_format="float")
    np.testing.assert_allclose(plain.data[0].embedding, vectors[0], atol=1e-6)


BAD = {
    "no image": ([{"role": "user", "content": "Water?"}], "about one image; this one has 0"),
    "address": (ask("Water?", "http://127.0.0.1/a.tif"), "Addresses are not fetched"),
    "damaged": (ask("Water?", "data:image/png;base64,????"), "have the form data:TYPE;base64,DATA"),
    "no picture": (ask("Water?", "data:image/png;base64,aGVsbG8="), "'image'"),
    "no question": (ask(" ", "data:image/png;base64,aGVsbG8="), "The question is empty"),
    "answered": ([{"role": "assistant", "content": "Yes."}], "The last message is the user's"),
    "role": ([{"role": "tool", "content": "x", "tool_call_id": "1"}], "has one of the roles"),
}


@pytest.mark.parametrize("form", BAD)
def test_bad_requests_get_one_sentence(form, client):
    messages, expected = BAD[form]
    with pytest.raises(openai.BadRequestError, match=expected):
        client.chat.completions.create(model="tiny", messages=messages)


def test_limits_and_keys_are_checked(client):
    with pytest.raises(openai.BadRequestError, match="temperature is at least 0 and at most 2"):
        client.chat.completions.create(
            model="tiny", messages=ask("Water?", "data:,"), temperature=9
        )
    with pytest.raises(openai.BadRequestError, match="a list of 1 to 256 texts"):
        client.embeddings.create(model="tiny", input=["a"] * 300)
    with pytest.raises(openai.NotFoundError, match="There is no model 'other'"):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-9': this server has 'tiny'"):
        client.chat.completions.create(model="gpt-9", messages=ask("Water?", "data:,"))
    with pytest.raises(openai.NotFoundError, match="There is no model 'gpt-9'"):
        client.embeddings.create(model="gpt-9", input="a lake")
    with pytest.raises(openai.BadRequestError, match="input have at most 50,000 characters"):
        client.embeddings.create(model="tiny", input="a" * 50_001)
    with pytest.raises(openai.BadRequestError, match="conversation has at most 50,000 char"):
        client.chat.completions.create(model="tiny", messages=ask("a" * 50_001, "data:,"))
    with pytest.raises(openai.APIStatusError, match="at most 64 MB") as refused:
        client.embeddings.create(model="tiny", input="a" * (MAX_BODY_BYTES + 1))
    assert refused.value.status_code == 413
    with pytest.raises(openai.PermissionDeniedError, match="Pages of other sites may not"):
        client.models.list(extra_headers={"Origin": "https://example.org"})
    with pytest.raises(openai.AuthenticationError, match="API key is missing or wrong"):
        client.with_options(api_key="another").models.list()
