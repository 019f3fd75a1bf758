"""Creation of repositories and branches.

Read from huggingface_hub's hf_api.py (`create_repo`: POST /api/repos/create, 409 where it exists;
`create_branch`).
"""

from __future__ import annotations

from tests.support.hub_server.access import check_writer, find_writable
from tests.support.hub_server.messages import Answer, Request
from tests.support.hub_server.routes import API, Route
from tests.support.hub_server.spaces import DEFAULT_HARDWARE, check_space
from tests.support.hub_server.state import full_name


def create_repository(request: Request) -> Answer:
    check_writer(request)
    hub, asked = request.hub, request.json
    if asked.get("type") == "space":
        check_space(asked)
    name = full_name(f"{asked.get('type') or 'model'}s", f"{asked['organization']}/{asked['name']}")
    is_known = name in hub.repositories
    if not is_known:
        repository = hub.repository(name)
        repository.private = asked.get("visibility") == "private"
        repository.hardware = asked.get("hardware") or DEFAULT_HARDWARE
        repository.commit({})
    return Answer(409 if is_known else 200, {"url": f"{hub.url}/{name}"})


def create_branch(request: Request, kind: str, name: str, branch: str) -> Answer:
    repository = find_writable(request, full_name(kind, name))
    if branch in repository.refs:
        return Answer(409, {})
    repository.refs[branch] = repository.refs.get("main", "")
    return Answer(content={})


ROUTES = [
    Route("POST", "/api/repos/create", create_repository),
    Route("POST", f"{API}/branch/(?P<branch>.+)", create_branch),
]
