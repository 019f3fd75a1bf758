"""What a Space's app reads from its environment.

Read from huggingface_hub's hf_api.py (`add_space_variable`).
"""

from __future__ import annotations

from tests.hub_server.access import find_writable
from tests.hub_server.messages import Answer, Request
from tests.hub_server.routes import API, Route
from tests.hub_server.state import full_name


def set_variable(request: Request, kind: str, name: str) -> Answer:
    repository, asked = find_writable(request, full_name(kind, name)), request.json
    repository.variables[asked["key"]] = asked["value"]
    return Answer(content={key: {"value": v} for key, v in repository.variables.items()})


ROUTES = [Route("POST", f"{API}/variables", set_variable)]
