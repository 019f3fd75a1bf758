"""Ports for the servers that tests start by number."""

from __future__ import annotations

import random
import socket

# Below every system's range of ephemeral ports: a server of a parallel process that asks for any
# port gets none of these between the moment one is chosen here and the moment it is listened on.
LOWEST, HIGHEST = 20_000, 32_000

_chosen: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing uses and that this process has not been given before."""
    for port in random.SystemRandom().sample(range(LOWEST, HIGHEST), k=100):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _chosen:
            _chosen.add(port)
            return port
    raise RuntimeError(f"no free port between {LOWEST} and {HIGHEST}")
