"""A bounded first-come, first-served queue, with which many clients share one model."""

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

from earthvlm.scenes.places.formatting import describe_count

MAX_WAITING = 16
MAX_PER_ADDRESS = 4
SECONDS_BETWEEN_REPORTS = 0.5
# A ticket that nobody asked about for this long is dropped, because its page was closed.
ABANDONED_SECONDS = 10.0


class QueueFull(ValueError):
    """Raised when a queue takes no more requests; the message says why and when to try again."""


@dataclass(eq=False)
class Ticket:
    """One request in a queue.

    Attributes:
        user: The session that waits.
        address: The network address that the request came from; empty if unknown.
        last_polled: When the owner last asked how many are ahead, in monotonic seconds.
        is_served: Whether its turn has come.
    """

    user: str
    address: str
    last_polled: float = field(default_factory=time.monotonic)
    is_served: bool = False


class RequestQueue:
    """A first-come, first-served queue for one kind of work.

    Args:
        max_waiting: How many requests may wait, not counting those being served.
        max_per_address: How many tickets one address may hold, because a client can make up users.
        concurrency: How many requests are served at the same time.
        concurrency_per_address: How many of these may come from one address, so that its slow
            requests leave room for others.
        work: What error messages call one request.
        one_per_user: Whether a user may hold only one ticket.
    """

    def __init__(
        self,
        max_waiting: int = MAX_WAITING,
        max_per_address: int = MAX_PER_ADDRESS,
        *,
        concurrency: int = 1,
        concurrency_per_address: int = 1,
        work: str = "question",
        one_per_user: bool = True,
    ) -> None:
        self.max_waiting = max_waiting
        self.max_per_address = max_per_address
        self.concurrency = concurrency
        self.concurrency_per_address = concurrency_per_address
        self.work = work
        self.one_per_user = one_per_user
        self._tickets: deque[Ticket] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many tickets there are, including those being served."""
        return len(self._tickets)

    def join(self, user: str, address: str = "") -> Ticket:
        """Add a ticket at the end.

        Raises:
            QueueFull: The queue is full, the address holds too many tickets, or the user has one.
        """
        with self._changed:
            self._drop_abandoned()
            from_address = sum(each.address == address for each in self._tickets)
            if self.one_per_user and any(each.user == user for each in self._tickets):
                raise QueueFull(
                    "Your last question is still being answered: wait for it, or stop it."
                )
            if address and from_address >= self.max_per_address:
                raise QueueFull(
                    f"Busy: {describe_count(from_address, self.work)} from your address are "
                    "already waiting. Try again when one is answered."
                )
            if len(self._tickets) >= self.max_waiting + self.concurrency:
                raise QueueFull(
                    f"Busy: {describe_count(len(self._tickets), self.work)} are already waiting. "
                    "Try again in about a minute."
                )
            ticket = Ticket(user, address)
            self._tickets.append(ticket)
            return ticket

    def wait(self, ticket: Ticket) -> Iterator[int]:
        """Yield how many requests are ahead, every half second, and return when its turn comes.

        Closing the iterator keeps the ticket in the queue; `leave` removes it.

        Raises:
            QueueFull: The ticket was dropped.
        """
        while True:
            with self._changed:
                ticket.last_polled = time.monotonic()
                self._drop_abandoned()
                if ticket not in self._tickets:
                    raise QueueFull("The wait was interrupted: ask again.")
                if self._is_next(ticket):
                    ticket.is_served, ticket.last_polled = True, float("inf")  # never abandoned
                    return
                ahead = max(1, self._tickets.index(ticket) - self.concurrency + 1)
            yield ahead
            with self._changed:
                self._changed.wait_for(
                    lambda: ticket not in self._tickets or self._is_next(ticket),
                    timeout=SECONDS_BETWEEN_REPORTS,
                )

    def leave(self, ticket: Ticket) -> None:
        """Remove a ticket, if it is still in the queue."""
        with self._changed:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    @contextmanager
    def turn(self, user: str, address: str = "") -> Iterator[None]:
        """Wait for this user's turn, and hold it. Raises QueueFull as `join` does."""
        ticket = self.join(user, address)
        try:
            for _ in self.wait(ticket):
                pass
            yield
        finally:
            self.leave(ticket)

    def _is_next(self, ticket: Ticket) -> bool:
        """Whether a ticket can be served now, after all that are before it and can be served."""
        served = Counter(each.address for each in self._tickets if each.is_served)
        for each in self._tickets:
            if each.is_served:
                continue
            if served.total() >= self.concurrency:
                return False
            if each.address and served[each.address] >= self.concurrency_per_address:
                continue
            if each is ticket:
                return True
            served[each.address] += 1
        return False

    def _drop_abandoned(self) -> None:
        oldest = time.monotonic() - ABANDONED_SECONDS
        self._tickets = deque(each for each in self._tickets if each.last_polled >= oldest)


def run_in(executor: Executor, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function, or a generator function, so that its code runs in an executor's threads."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        return executor.submit(function, *arguments, **options).result()

    @functools.wraps(function)
    def iterate(*arguments: Any, **options: Any) -> Iterator[Any]:
        pieces, end = function(*arguments, **options), object()
        try:
            while (piece := executor.submit(next, pieces, end).result()) is not end:
                yield piece
        finally:
            executor.submit(pieces.close).result()

    return iterate if inspect.isgeneratorfunction(function) else call
