"""A Hub on this machine: the HTTP that huggingface_hub's real client speaks.

One module for each concern: `objects` and `state` keep what was pushed, `messages`, `routes` and
`handler` carry requests, `access` decides who may do what, and the others answer: `info`, `files`,
`repositories`, `commits`, `cards` and `spaces`. Each of these says from which of huggingface_hub's
source files (version 2.4) its answers were read.
"""

from tests.support.hub_server.access import TOKEN
from tests.support.hub_server.handler import serve
from tests.support.hub_server.state import LocalHub, Repository

__all__ = ["TOKEN", "LocalHub", "Repository", "serve"]
