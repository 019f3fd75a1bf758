"""Access rights: who may read and write which repository.

Read from huggingface_hub's utils/_http.py (`hf_raise_for_status`: which status and X-Error-Code
mean a missing, private or gated repository, a missing revision or file, and a wrong token) and
hf_api.py (`auth_check`).
"""

from __future__ import annotations

from tests.support.hub_server.messages import Answer, Refusal, Request, refuse
from tests.support.hub_server.routes import API, Route
from tests.support.hub_server.state import Repository, full_name

TOKEN = "hf_the_token_that_may_write"


def check_token(request: Request) -> None:
    """Refuse an unknown token. A request without a token is anonymous."""
    known = {f"Bearer {token}" for token in (TOKEN, *request.hub.readers)}
    if request.headers.get("Authorization") not in {None, *known}:
        message = "Invalid credentials in Authorization header"
        raise Refusal(Answer(401, {}, {"X-Error-Message": message}))


def may_read(request: Request) -> bool:
    """Whether the caller may read private repositories."""
    readers = {f"Bearer {token}" for token in request.hub.readers}
    return may_write(request) or request.headers.get("Authorization") in readers


def may_write(request: Request) -> bool:
    return request.headers.get("Authorization") == f"Bearer {TOKEN}"


def find_readable(request: Request, name: str) -> Repository:
    """Return the repository of this name, if the caller may read its files."""
    repository = find_visible(request, name)
    if name in request.hub.gated:
        raise refuse(403, "GatedRepo")
    return repository


def find_visible(request: Request, name: str) -> Repository:
    """Return the repository of this name, if the caller may see its page."""
    check_token(request)
    _follow_renaming(request, name)
    repository = request.hub.repositories.get(name)
    if repository is None or (repository.private and not may_read(request)):
        raise refuse(401, "RepoNotFound")
    return repository


def find_commit(repository: Repository, revision: str) -> str:
    """The hash of the commit at a branch, tag or hash."""
    sha = repository.resolve(revision)
    if sha is None:
        raise refuse(404, "RevisionNotFound")
    return sha


def check_writer(request: Request) -> None:
    check_token(request)
    if not may_write(request):
        raise refuse(403 if may_read(request) else 401)


def find_writable(request: Request, name: str) -> Repository:
    """The repository of this name, if the caller may write to it."""
    check_writer(request)
    _follow_renaming(request, name)
    repository = request.hub.repositories.get(name)
    if repository is None:
        raise refuse(404, "RepoNotFound")
    return repository


def _follow_renaming(request: Request, name: str) -> None:
    """Redirect a request for a renamed repository to its new name."""
    if name not in request.hub.renamed:
        return
    names = name, request.hub.renamed[name]
    old, new = (full.split("/", full.count("/") - 1)[-1] for full in names)
    raise Refusal(Answer(307, b"", {"Location": request.target.replace(old, new, 1)}))


def check_access(request: Request, kind: str, name: str, write: str | None) -> Answer:
    """Answer with a status and no body: may the caller read, or write to, a repository?"""
    find_readable(request, full_name(kind, name))
    if write:
        find_writable(request, full_name(kind, name))
    return Answer(content={})


ROUTES = [Route("GET", f"{API}/auth-check(?P<write>/write)?", check_access)]
