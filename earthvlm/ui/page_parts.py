"""Scripts and styles that a part of the page fetches when it is shown, and not with the page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from earthvlm.scenes.places.gazetteer import Place, largest_places

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

FOLDER = Path(__file__).parent
# Modules that export one function; the files of each are in one scope.
MODULES = {
    "viewer.js": ("showScene", ("pixels.js", "viewer.js", "viewer_parts.js", "viewer_values.js")),
    "compare.js": ("showPair", ("pixels.js", "compare.js")),
}
# For the names on the world map: towns with more than 50,000 inhabitants, and the others.
TOWNS, SMALL_TOWNS = "towns.json", "small-towns.json"
TOWN_COUNT = 12_000
KINDS = {".js": "text/javascript", ".css": "text/css", ".json": "application/json"}
CACHING = "public, max-age=31536000, immutable"  # where an address holds the hash of its content
UNTIL_LATER = "public, max-age=3600"  # where it does not


@cache
def read_parts() -> dict[str, str]:
    """Return the parts by their names under /parts/; nothing else is served there."""
    parts = {file.name: file.read_text("utf-8") for file in (FOLDER / "map").iterdir()}
    towns = largest_places()
    parts[TOWNS] = _write_towns(towns[:TOWN_COUNT])
    parts[SMALL_TOWNS] = _write_towns(towns[TOWN_COUNT:])
    for module, (function, names) in MODULES.items():
        body = "".join((FOLDER / name).read_text("utf-8") for name in names)
        parts[module] = f"export function {function}(element, props, trigger, watch) {{\n{body}}}\n"
    return parts


def load_module(name: str, events: str) -> str:
    """Return the script of a component that calls the function of a module with its own events.

    events: as a list of JavaScript. Gradio finds the names of the events in this text.
    """
    function, _ = MODULES[name]
    return (
        f"const events = {events};\nimport(new URL('{part_address(name)}', document.baseURI))"
        f".then(({{{function}}}) => {function}(element, props, trigger, watch));\n"
    )


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


def _write_towns(places: Sequence[Place]) -> str:
    """Return towns as JSON: name, longitude and latitude of each."""
    towns = [[place.name, round(place.longitude, 3), round(place.latitude, 3)] for place in places]
    return json.dumps(towns, ensure_ascii=False, separators=(",", ":"))
