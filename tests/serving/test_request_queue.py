"""The line people wait in, exports, and where an answer looked."""

from __future__ import annotations

import csv
import gc
import html
import io
import json
import re
import threading
import time
import weakref
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import earthvlm.serving.request_queue as serving
from earthvlm.bridge.attention_maps import attend
from earthvlm.scenes.spectral_indices import SOURCES, measure
from earthvlm.search.index import SceneResult
from earthvlm.serving.exports import conversation_to_markdown, results_to_csv, results_to_geojson
from earthvlm.serving.request_queue import QueueFull, RequestQueue
from earthvlm.serving.service import (
    OPENINGS_PER_ADDRESS,
    SEARCHES_AT_ONCE,
    Client,
    SceneService,
    Waiting,
)
from tests.conftest import random_scene


def test_a_line_serves_first_come_first_and_bounds_itself():
    line = RequestQueue(most_waiting=2, most_per_address=2)
    first, second = line.join("a", "1"), line.join("b", "1")
    with pytest.raises(QueueFull, match="from your address"):
        line.join("c", "1")
    with pytest.raises(QueueFull, match="still being answered"):
        line.join("a", "2")
    third = line.join("d", "2")
    with pytest.raises(QueueFull, match="3 questions are waiting"):
        line.join("e", "3")
    assert list(line.wait(first)) == []
    waiting = line.wait(third)
    assert next(waiting) == 2
    line.leave(second)
    assert next(waiting) == 1
    line.leave(first)
    assert list(waiting) == []
    line.leave(third)
    line.leave(third)
    assert len(line) == 0


def test_a_line_serves_several_at_once():
    line = RequestQueue(most_waiting=1, most_per_address=9, served_at_once=2, once_per_user=False)
    first, second = line.join("a"), line.join("a")
    assert list(line.wait(first)) == list(line.wait(second)) == []
    third = line.join("b")
    waiting = line.wait(third)
    assert next(waiting) == 1
    with pytest.raises(QueueFull, match="3 questions are waiting"):
        line.join("c")
    line.leave(second)
    assert list(waiting) == []


def test_opening_is_bounded_whoever_asks_for_it():
    service = SceneService(None, None)
    held = ExitStack()
    with held:
        held.enter_context(service.opening(Client("made-up", "1")))
        threads = [
            threading.Thread(target=open_once, args=(service, f"made-up-{number}"), daemon=True)
            for number in range(OPENINGS_PER_ADDRESS - 1)
        ]
        for thread in threads:
            thread.start()
        while len(service.openings) < OPENINGS_PER_ADDRESS:
            time.sleep(0.01)
        assert all(thread.is_alive() for thread in threads)
        with pytest.raises(QueueFull, match="4 files from your address are waiting"):
            open_once(service, "another")
        open_once(service, "of another address", "2")  # one child is left to others
    for thread in threads:
        thread.join(10)
    assert len(service.openings) == 0


def open_once(service: SceneService, user: str, address: str = "1") -> None:
    with service.opening(Client(user, address)):
        pass


def test_a_search_by_file_keeps_an_embedding_and_no_pixels():
    vector = np.ones(384, np.float32)
    bridge = SimpleNamespace(revision="r", embed=lambda scenes: vector[None])
    asked = []
    index = SimpleNamespace(
        provenance=SimpleNamespace(bridge_revision="r"),
        search=lambda query, k, where: asked.append(query) or [],
    )
    service, scene = SceneService(bridge, index), random_scene()
    example = service.embed(scene, Client("a"))
    service.find(("a lake", example), 3, Client("a"))
    assert example.name == scene.name and asked[0][0] == "a lake" and (asked[0][1] == vector).all()
    held = weakref.ref(scene)
    del scene
    gc.collect()
    assert held() is None


def test_a_place_that_nobody_asks_after_is_given_up():
    line = RequestQueue()
    left, waits = line.join("left"), line.join("waits")
    left.seen -= 2 * serving.ABANDONED_SECONDS
    assert list(line.wait(waits)) == []
    with pytest.raises(QueueFull, match="broken off"):
        list(line.wait(left))


def test_answers_come_one_at_a_time_and_in_turn():
    speaking, most, order = 0, 0, []

    def stream(scene, conversation, max_length, temperature, stop):
        nonlocal speaking, most
        speaking += 1
        most = max(most, speaking)
        yield conversation[-1]["content"]
        order.append(conversation[-1]["content"])
        speaking -= 1

    service = SceneService(SimpleNamespace(stream=stream), None)
    blocker = service.line.join("blocker")
    scene, waited = random_scene(), []

    def ask(name: str) -> None:
        for piece in service.answer(scene, [{"role": "user", "content": name}], Client(name)):
            waited.append(piece) if isinstance(piece, Waiting) else None

    threads = []
    for number, name in enumerate("abc", start=2):
        threads.append(threading.Thread(target=ask, args=(name,)))
        threads[-1].start()
        while len(service.line) < number:
            pass
    service.line.leave(blocker)
    for thread in threads:
        thread.join(20)
    assert order == ["a", "b", "c"] and most == 1 and waited
    assert len(service.line) == 0


def test_the_model_works_in_one_thread_and_few_search_whoever_asks():
    answering, searching, ended = set(), set(), set()
    done = threading.Semaphore(0)

    def stream(*_, stop):
        try:
            for word in ("a ", "lake"):
                answering.add(threading.current_thread())
                yield word
        finally:
            ended.add(threading.current_thread())

    def search(*_, where):
        searching.add(threading.current_thread())
        return []

    service = SceneService(SimpleNamespace(stream=stream), SimpleNamespace(search=search))

    def visit(name: str) -> None:
        assert service.ask(random_scene(), "Is there water?", Client(name)) == "a lake"
        pieces = service.answer(random_scene(), [{"role": "user", "content": "?"}], Client(name))
        next(piece for piece in pieces if isinstance(piece, str))
        pieces.close()
        service.find("water", 1, Client(name))
        done.release()

    visitors = [threading.Thread(target=visit, args=(str(number),)) for number in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(20)
    assert all(done.acquire(blocking=False) for _ in visitors)
    assert len(answering) == 1 and answering == ended
    assert 1 <= len(searching) <= SEARCHES_AT_ONCE
    # Threads themselves: a number is given again once its thread has ended.
    assert not (answering | searching) & set(visitors)


def test_what_fails_in_the_models_thread_fails_where_it_was_asked():
    def stream(*_, stop):
        yield "a"
        raise ValueError("too long")

    service = SceneService(SimpleNamespace(stream=stream), None)
    with pytest.raises(ValueError, match="too long"):
        service.ask(random_scene(), "Is there water?", Client("a"))
    assert len(service.line) == 0


def test_closing_or_stopping_an_answer_frees_the_line():
    ended = []

    def stream(*_, stop):
        try:
            while True:
                yield "word "
        finally:
            ended.append(True)

    service = SceneService(SimpleNamespace(stream=stream), None)
    asked = [{"role": "user", "content": "?"}]
    pieces = service.answer(random_scene(), asked, Client("a"))
    next(pieces)
    pieces.close()
    stop = threading.Event()
    pieces = service.answer(random_scene(), asked, Client("a"), stop=stop)
    next(pieces)
    stop.set()
    assert list(pieces) == []
    assert len(service.line) == 0 and len(ended) == 2


MARKUP = (
    "[link](http://x) ![picture](http://x/y.png) <b>tag</b> <https://auto> https://bare "
    "www.bare.org &lt;entity&gt; `code` **bold** _slant_ ~~gone~~ $x$ | table | me@example.org\n"
    "# heading\n- list\n1. list\n---\n===\n> quote\n    code\n\n[a]: http://x"
)


def test_a_conversation_in_markdown_shows_what_was_said_as_text():
    scene = replace(random_scene(), name=f"lake\n# {MARKUP}")
    said = [{"role": "user", "content": MARKUP}, {"role": "assistant", "content": MARKUP}]
    text = conversation_to_markdown(scene, said, measure(scene), f"a bridge\n{MARKUP}")
    assert "| water |" in text and "a bridge" in text
    assert not re.search(r"(?<!\\)://|www\.", text.replace(SOURCES, ""))  # GitHub links these
    with pytest.raises(ValueError, match="no conversation"):
        conversation_to_markdown(scene, [], None, "")

    markdown = pytest.importorskip("markdown_it", reason="reading Markdown needs markdown-it-py")
    shown = markdown.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    for element in ("a", "img", "b", "code", "em", "ul", "ol", "hr", "del", "pre"):
        assert not re.search(rf"<{element}[ >]", shown), element
    quotes = re.findall("<blockquote>(.*?)</blockquote>", shown, re.DOTALL)
    lines = [line.strip() for line in MARKUP.splitlines()]
    for quote in quotes:
        words = html.unescape(re.sub(r"</?p>|<br />", "", quote))
        assert [line for line in words.split("\n") if line] == [line for line in lines if line]
    assert len(quotes) == 2


def make_result(name: str, caption: str, longitude: float | None = 10.5) -> SceneResult:
    latitude = None if longitude is None else 50.25
    return SceneResult(name, caption, "tiles", longitude, latitude, "made up", None, None)


def test_results_as_csv_and_geojson():
    results = [make_result("a", '=HYPERLINK("x")'), make_result("b", "two\nlines", None)]
    rows = list(csv.DictReader(io.StringIO(results_to_csv(results))))
    assert [row["image_id"] for row in rows] == ["a", "b"]
    assert rows[0]["caption"].startswith("'=") and rows[1]["caption"] == "two\nlines"
    features = json.loads(results_to_geojson(results))["features"]
    assert features[0]["geometry"] == {"type": "Point", "coordinates": [10.5, 50.25]}
    assert features[1]["geometry"] is None and features[1]["properties"]["rank"] == 2
    for export in (results_to_csv, results_to_geojson):
        with pytest.raises(ValueError, match="no results"):
            export([])


@pytest.mark.parametrize("side", [64, 144])
def test_attention_covers_the_scene_word_by_word(tiny_bridge, side: int):
    scene = random_scene(side, side)
    said = [
        {"role": "user", "content": "Is there water?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes, a lake fills the north."},
    ]
    before = tiny_bridge.generate(scene, "Is there water?", max_length=8)
    attention = attend(tiny_bridge, scene, said)
    assert "".join(attention.words) == said[-1]["content"]
    assert attention.maps.shape == (6, side // 8, side // 8)
    np.testing.assert_allclose(attention.maps.sum((1, 2)), 1, rtol=1e-4)
    assert attention.baseline.sum() == pytest.approx(1, rel=1e-4)
    for shown in (attention.relative_attention(), attention.relative_attention(2)):
        assert shown.min() == 0 and shown.max() == 1
    assert tiny_bridge.generate(scene, "Is there water?", max_length=8) == before
    with pytest.raises(ValueError, match="no answer yet"):
        attend(tiny_bridge, scene, said[:-1])


def test_attention_is_the_product_of_both_attentions(tiny_bridge):
    """With queries that each see one patch alone, the map is the attention to those queries."""
    import torch

    scene = random_scene()
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "A lake."}]
    forward = tiny_bridge.fusion.forward
    one_hot = torch.zeros(1, 8, 64)
    one_hot[0, torch.arange(8), torch.arange(8) * 3] = 1

    def see_one_each(*args, **options):
        return forward(*args, **options)[0], one_hot

    tiny_bridge.fusion.forward = see_one_each
    maps = attend(tiny_bridge, scene, said).maps.reshape(-1, 64)
    assert (maps[:, [0, 3, 6, 9, 12, 15, 18, 21]] > 0).all()
    np.testing.assert_allclose(maps[:, [1, 2, 40]], 0)
