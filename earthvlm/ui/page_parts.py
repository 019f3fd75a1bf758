"""Scripts and styles that a part of the page fetches when it is shown, and not with the page."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from earthvlm.scenes.places.gazetteer import largest_places

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

FOLDER = Path(__file__).parent
VIEWER = ("viewer.js", "viewer_parts.js", "viewer_values.js")  # in one scope
TOWNS = "towns.json"  # for the names on the world map
TOWN_COUNT = 12_000  # those with more than 50,000 inhabitants
KINDS = {".js": "text/javascript", ".css": "text/css", ".json": "application/json"}
CACHING = "public, max-age=31536000, immutable"  # where an address holds the hash of its content
UNTIL_LATER = "public, max-age=3600"  # where it does not


@cache
def read_parts() -> dict[str, str]:
    """Return the parts by their names under /parts/; nothing else is served there."""
    parts = {file.name: file.read_text("utf-8") for file in (FOLDER / "map").iterdir()}
    parts[TOWNS] = _write_towns()
    scene = "".join((FOLDER / name).read_text("utf-8") for name in VIEWER)
    show = "export function showScene(element, props, trigger, watch)"
    parts["viewer.js"] = f"{show} {{\n{scene}}}\n"
    return parts


def part_address(name: str) -> str:
    """Return the address of a part, from the page."""
    digest = hashlib.sha256(read_parts()[name].encode()).hexdigest()[:12]
    return f"parts/{name}?v={digest}"


def serve_parts(app: Starlette) -> None:
    """Serve the parts, before the app's own routes, the last of which takes any path."""
    app.router.routes.insert(0, Route("/parts/{name}", _send_part))


async def _send_part(request: Request) -> Response:
    name = request.path_params["name"]
    content = read_parts().get(name)
    if content is None:
        return Response(status_code=404)
    caching = CACHING if "v" in request.query_params else UNTIL_LATER
    return Response(
        content, media_type=KINDS[Path(name).suffix], headers={"cache-control": caching}
    )


def _write_towns() -> str:
    """Return the largest towns as JSON: name, longitude and latitude of each."""
    towns = [
        [place.name, round(place.longitude, 3), round(place.latitude, 3)]
        for place in largest_places(TOWN_COUNT)
    ]
    return json.dumps(towns, ensure_ascii=False, separators=(",", ":"))
