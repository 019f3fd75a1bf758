"""A Space's variables, secrets and volumes.

Read from huggingface_hub's hf_api.py (`add_space_variable`, `add_space_secret`,
`get_space_runtime`, `set_space_volumes`, `delete_space_volumes`) and _space_api.py (`SpaceRuntime`,
`Volume`).
"""

from __future__ import annotations

from typing import Any

from huggingface_hub import SpaceHardware
from huggingface_hub.constants import SPACES_SDK_TYPES

from tests.support.hub_server.access import find_readable, find_writable
from tests.support.hub_server.messages import Answer, Request, refuse
from tests.support.hub_server.routes import API, Route
from tests.support.hub_server.state import full_name

DEFAULT_HARDWARE = "cpu-basic"


def check_space(asked: dict[str, Any]) -> None:
    """Refuse a new Space with an unknown SDK or hardware."""
    hardware = asked.get("hardware")
    if asked.get("sdk") not in SPACES_SDK_TYPES:
        raise refuse(400)
    if hardware is not None and hardware not in list(SpaceHardware):
        raise refuse(400)


def set_variable(request: Request, kind: str, name: str) -> Answer:
    repository, asked = find_writable(request, full_name(kind, name)), request.json
    repository.variables[asked["key"]] = asked["value"]
    return Answer(content={key: {"value": v} for key, v in repository.variables.items()})


def set_secret(request: Request, kind: str, name: str) -> Answer:
    """Store a secret. No response contains its value."""
    repository, asked = find_writable(request, full_name(kind, name)), request.json
    repository.secrets[asked["key"]] = asked["value"]
    return Answer(content={key: {} for key in repository.secrets})


def describe_runtime(request: Request, kind: str, name: str) -> Answer:
    repository = find_readable(request, full_name(kind, name))
    hardware = {"current": None, "requested": repository.hardware}
    content = {"stage": "BUILDING", "hardware": hardware, "volumes": repository.volumes or None}
    return Answer(content=content)


def set_volumes(request: Request, kind: str, name: str) -> Answer:
    """Replace the mounted volumes by these."""
    repository = find_writable(request, full_name(kind, name))
    if request.hub.refuses_volumes:
        raise refuse(402)
    repository.volumes = request.json["volumes"]
    return Answer(content=repository.volumes)


def delete_volumes(request: Request, kind: str, name: str) -> Answer:
    find_writable(request, full_name(kind, name)).volumes = []
    return Answer()


ROUTES = [
    Route("POST", f"{API}/variables", set_variable),
    Route("POST", f"{API}/secrets", set_secret),
    Route("GET", f"{API}/runtime", describe_runtime),
    Route("PUT", f"{API}/volumes", set_volumes),
    Route("DELETE", f"{API}/volumes", delete_volumes),
]
