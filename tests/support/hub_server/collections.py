"""Collections of repositories.

Read from huggingface_hub's hf_api.py (`create_collection`, `add_collection_item`, `get_collection`,
`Collection`, `CollectionItem`).
"""

from __future__ import annotations

from typing import Any

from tests.support.hub_server.access import may_write
from tests.support.hub_server.messages import Answer, Refusal, Request, refuse
from tests.support.hub_server.routes import Route
from tests.support.hub_server.state import full_name

SLUG = r"(?P<slug>[^/]+/[^/]+)"


def create(request: Request) -> Answer:
    """Create a collection; 409 with its slug where there is one of that title."""
    if not may_write(request):
        raise refuse(401)
    asked = request.json
    slug = f"{asked['namespace']}/{asked['title'].lower()}-0123"
    if slug in request.hub.collections:
        raise Refusal(Answer(409, {"slug": slug}))
    request.hub.collections[slug] = {
        "slug": slug,
        "title": asked["title"],
        "owner": {"name": asked["namespace"]},
        "description": asked.get("description"),
        "private": asked["private"],
        "items": [],
        "lastUpdated": "2026-11-30T08:00:00.000Z",
        "position": 0,
        "theme": "blue",
        "upvotes": 0,
    }
    return Answer(content=request.hub.collections[slug])


def describe(request: Request, slug: str) -> Answer:
    return Answer(content=find(request, slug))


def add_item(request: Request, slug: str) -> Answer:
    """Add an item; 409 where the collection has it, 404 where it does not exist."""
    if not may_write(request):
        raise refuse(401)
    collection, asked = find(request, slug), request.json
    item = asked["item"]
    if full_name(f"{item['type']}s", item["id"]) not in request.hub.repositories:
        raise refuse(404, "RepoNotFound")
    if any((one["id"], one["type"]) == (item["id"], item["type"]) for one in collection["items"]):
        raise refuse(409)
    number = len(collection["items"])
    added = {**item, "_id": str(number), "position": number, "repoType": item["type"]}
    collection["items"].append(
        added | {"note": {"text": asked["note"]}} if "note" in asked else added
    )
    return Answer(content=collection)


def find(request: Request, slug: str) -> dict[str, Any]:
    if slug not in request.hub.collections:
        raise refuse(404)
    return request.hub.collections[slug]


ROUTES = [
    Route("POST", "/api/collections", create),
    Route("GET", f"/api/collections/{SLUG}", describe),
    Route("POST", f"/api/collections/{SLUG}/items", add_item),
]
