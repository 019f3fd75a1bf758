"""Sharing one model among many people: in turn, a bounded number waiting, nobody twice."""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MOST_WAITING = 16
MOST_PER_ADDRESS = 4
SECONDS_BETWEEN_REPORTS = 0.5
# A turn nobody asked after for so long was left behind: its page is gone.
ABANDONED_SECONDS = 10.0


class QueueFull(ValueError):
    """Too many wait already; the message says so, and when to come back."""


@dataclass(eq=False)
class Ticket:
    """A place in the line. `user` is who waits, `address` where from."""

    user: str
    address: str
    seen: float = field(default_factory=time.monotonic)
    served: bool = False


class RequestQueue:
    """First come, first served, for one kind of work.

    most_waiting: how many may wait at once, those being served not counted.
    most_per_address: how many places one address may hold, since users are made up at will.
    served_at_once: how many are served at once, and served_per_address, of one address, so that
        its slow work leaves room for others. work: what one is called in a message.
    once_per_user: whether a user may have one place only.
    """

    def __init__(
        self,
        most_waiting: int = MOST_WAITING,
        most_per_address: int = MOST_PER_ADDRESS,
        *,
        served_at_once: int = 1,
        served_per_address: int = 1,
        work: str = "question",
        once_per_user: bool = True,
    ) -> None:
        self.most_waiting = most_waiting
        self.most_per_address = most_per_address
        self.served_at_once = served_at_once
        self.served_per_address = served_per_address
        self.work = work
        self.once_per_user = once_per_user
        self._places: deque[Ticket] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many are in line, the one being served included."""
        return len(self._places)

    def join(self, user: str, address: str = "") -> Ticket:
        """Take a place at the end. Raises QueueFull if the queue is full or holds this user."""
        with self._changed:
            self._drop_abandoned()
            held = Counter(place.address for place in self._places)
            if self.once_per_user and any(place.user == user for place in self._places):
                raise QueueFull(
                    "Your last question is still being answered: wait for it, or stop it."
                )
            if address and held[address] >= self.most_per_address:
                raise QueueFull(
                    f"Busy: {_count(held[address], self.work)} from your address are waiting "
                    "already. Try again when one is answered."
                )
            if len(self._places) >= self.most_waiting + self.served_at_once:
                raise QueueFull(
                    f"Busy: {_count(len(self._places), self.work)} are waiting already. Try again "
                    "in about a minute."
                )
            place = Ticket(user, address)
            self._places.append(place)
            return place

    def wait(self, place: Ticket) -> Iterator[int]:
        """Yield how many are ahead, now and then, until it is this place's turn.

        Closing the iterator does not give the place up; `leave` does.
        """
        while True:
            with self._changed:
                place.seen = time.monotonic()
                self._drop_abandoned()
                if place not in self._places:
                    raise QueueFull("The wait was broken off: ask again.")
                if self._admits(place):
                    place.served, place.seen = True, float("inf")  # no longer asked after
                    return
                ahead = max(1, self._places.index(place) - self.served_at_once + 1)
            yield ahead
            with self._changed:
                self._changed.wait_for(
                    lambda: place not in self._places or self._admits(place),
                    timeout=SECONDS_BETWEEN_REPORTS,
                )

    def leave(self, place: Ticket) -> None:
        """Give a place up, served or not; giving it up twice is no error."""
        with self._changed:
            if place in self._places:
                self._places.remove(place)
                self._changed.notify_all()

    @contextmanager
    def turn(self, user: str, address: str = "") -> Iterator[None]:
        """Wait for this user's turn, and hold it. Raises QueueFull as `join` does."""
        place = self.join(user, address)
        try:
            for _ in self.wait(place):
                pass
            yield
        finally:
            self.leave(place)

    def _admits(self, place: Ticket) -> bool:
        """Whether it is a place's turn: nobody before it could be served in its stead."""
        served = Counter(each.address for each in self._places if each.served)
        for each in self._places:
            if each.served:
                continue
            if served.total() >= self.served_at_once:
                return False
            if each.address and served[each.address] >= self.served_per_address:
                continue
            if each is place:
                return True
            served[each.address] += 1
        return False

    def _drop_abandoned(self) -> None:
        now = time.monotonic()
        for place in [p for p in self._places if now - p.seen > ABANDONED_SECONDS]:
            self._places.remove(place)


def _count(number: int, work: str) -> str:
    return f"{number} {work}{'es' if work.endswith('h') else 's'}"


def work_in(threads: Executor, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function run in other threads than those it is called in; a generator is read there."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        return threads.submit(function, *arguments, **named).result()

    @functools.wraps(function)
    def read(*arguments: Any, **named: Any) -> Iterator[Any]:
        pieces, ended = function(*arguments, **named), object()
        try:
            while (piece := threads.submit(next, pieces, ended).result()) is not ended:
                yield piece
        finally:
            threads.submit(pieces.close).result()

    return read if inspect.isgeneratorfunction(function) else run
