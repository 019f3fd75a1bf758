"""RequestQueue: order, bounds, several requests at once, and tickets that were abandoned."""

from __future__ import annotations

import pytest

from earthvlm.serving.request_queue import ABANDONED_SECONDS, QueueFull, RequestQueue


def test_queue_serves_in_order_and_rejects_overflow():
    queue = RequestQueue(max_waiting=2, max_per_address=2)
    first, second = queue.join("a", "1"), queue.join("b", "1")
    with pytest.raises(QueueFull, match="from your address"):
        queue.join("c", "1")
    with pytest.raises(QueueFull, match="still being answered"):
        queue.join("a", "2")
    third = queue.join("d", "2")
    with pytest.raises(QueueFull, match="3 questions are already waiting"):
        queue.join("e", "3")
    assert list(queue.wait(first)) == []
    waiting = queue.wait(third)
    assert next(waiting) == 2
    queue.leave(second)
    assert next(waiting) == 1
    queue.leave(first)
    assert list(waiting) == []
    queue.leave(third)
    queue.leave(third)
    assert len(queue) == 0


def test_queue_serves_several_at_once():
    queue = RequestQueue(max_waiting=1, max_per_address=9, concurrency=2, one_per_user=False)
    first, second = queue.join("a"), queue.join("a")
    assert list(queue.wait(first)) == list(queue.wait(second)) == []
    third = queue.join("b")
    waiting = queue.wait(third)
    assert next(waiting) == 1
    with pytest.raises(QueueFull, match="3 questions are already waiting"):
        queue.join("c")
    queue.leave(second)
    assert list(waiting) == []


def test_queue_drops_abandoned_tickets():
    queue = RequestQueue()
    abandoned, waiting = queue.join("closed its page"), queue.join("waits")
    abandoned.last_polled -= 2 * ABANDONED_SECONDS
    assert list(queue.wait(waiting)) == []
    with pytest.raises(QueueFull, match="interrupted"):
        list(queue.wait(abandoned))
