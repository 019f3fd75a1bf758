"""SceneService: turns, threads, errors and memory, with small stand-ins for the models."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from earthvlm.serving.request_queue import QueueFull
from earthvlm.serving.service import (
    MAX_FILES_PER_ADDRESS,
    SEARCH_THREADS,
    Client,
    SceneService,
    Waiting,
)
from tests.conftest import random_scene

QUESTION = [{"role": "user", "content": "?"}]


def make_service(stream) -> SceneService:
    """A service whose bridge answers with this function."""
    return SceneService(SimpleNamespace(stream=stream), None)


def open_once(service: SceneService, user: str, address: str = "1") -> None:
    with service.opening(Client(user, address)):
        pass


def test_opening_files_is_bounded_per_address():
    service = SceneService(None, None)
    with ExitStack() as held:
        held.enter_context(service.opening(Client("made-up", "1")))
        threads = [
            threading.Thread(target=open_once, args=(service, f"made-up-{number}"), daemon=True)
            for number in range(MAX_FILES_PER_ADDRESS - 1)
        ]
        for thread in threads:
            thread.start()
        while len(service.file_queue) < MAX_FILES_PER_ADDRESS:
            time.sleep(0.01)
        assert all(thread.is_alive() for thread in threads)
        with pytest.raises(QueueFull, match="4 files from your address are already waiting"):
            open_once(service, "another")
        open_once(service, "of another address", "2")  # one reader is left to others
    for thread in threads:
        thread.join(10)
    assert len(service.file_queue) == 0


def test_search_by_file_keeps_the_embedding_only():
    vector = np.ones(384, np.float32)
    bridge = SimpleNamespace(revision="r", embed=lambda scenes: vector[None])
    queries = []
    index = SimpleNamespace(
        provenance=SimpleNamespace(bridge_revision="r"),
        search=lambda query, k, where, unlike: queries.append(query) or [],
    )
    service, scene = SceneService(bridge, index), random_scene()
    example = service.embed(scene, Client("a"))
    service.search(("a lake", example), 3, Client("a"))
    assert example.name == scene.name
    assert queries[0][0] == "a lake" and (queries[0][1] == vector).all()
    reference = weakref.ref(scene)
    del scene
    gc.collect()
    assert reference() is None


def test_answers_come_one_at_a_time_in_order():
    running, most_running, order = 0, 0, []

    def stream(scene, conversation, max_length, temperature, stop):
        nonlocal running, most_running
        running += 1
        most_running = max(most_running, running)
        yield conversation[-1]["content"]
        order.append(conversation[-1]["content"])
        running -= 1

    service = make_service(stream)
    queue = service.question_queue
    blocker = queue.join("blocker")
    scene, reports = random_scene(), []

    def ask(name: str) -> None:
        pieces = service.answer(scene, [{"role": "user", "content": name}], Client(name))
        reports.extend(piece for piece in pieces if isinstance(piece, Waiting))

    threads = []
    for count, name in enumerate("abc", start=2):
        threads.append(threading.Thread(target=ask, args=(name,)))
        threads[-1].start()
        while len(queue) < count:
            time.sleep(0.001)
    queue.leave(blocker)
    for thread in threads:
        thread.join(20)
    assert order == ["a", "b", "c"] and most_running == 1 and reports
    assert len(queue) == 0


def test_model_runs_in_one_thread_and_searches_in_few():
    answering, searching, ending = set(), set(), set()
    finished = threading.Semaphore(0)

    def stream(*_, stop):
        try:
            for word in ("a ", "lake"):
                answering.add(threading.current_thread())
                yield word
        finally:
            ending.add(threading.current_thread())

    def search(*_, where, unlike):
        searching.add(threading.current_thread())
        return []

    service = SceneService(SimpleNamespace(stream=stream), SimpleNamespace(search=search))

    def visit(name: str) -> None:
        assert service.ask(random_scene(), "Is there water?", Client(name)) == "a lake"
        pieces = service.answer(random_scene(), QUESTION, Client(name))
        next(piece for piece in pieces if isinstance(piece, str))
        pieces.close()
        service.search("water", 1, Client(name))
        finished.release()

    visitors = [threading.Thread(target=visit, args=(str(number),)) for number in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(20)
    assert all(finished.acquire(blocking=False) for _ in visitors)
    assert len(answering) == 1 and answering == ending
    assert 1 <= len(searching) <= SEARCH_THREADS
    # Thread objects, because an identifier is reused after its thread has ended.
    assert not (answering | searching) & set(visitors)


def test_errors_of_the_model_reach_the_caller():
    def stream(*_, stop):
        yield "a"
        raise ValueError("too long")

    service = make_service(stream)
    with pytest.raises(ValueError, match="too long"):
        service.ask(random_scene(), "Is there water?", Client("a"))
    assert len(service.question_queue) == 0


def test_closing_or_stopping_an_answer_frees_the_queue():
    ended = []

    def stream(*_, stop):
        try:
            while True:
                yield "word "
        finally:
            ended.append(True)

    service = make_service(stream)
    pieces = service.answer(random_scene(), QUESTION, Client("a"))
    next(pieces)
    pieces.close()
    stop = threading.Event()
    pieces = service.answer(random_scene(), QUESTION, Client("a"), stop=stop)
    next(pieces)
    stop.set()
    assert list(pieces) == []
    assert len(service.question_queue) == 0 and len(ended) == 2
