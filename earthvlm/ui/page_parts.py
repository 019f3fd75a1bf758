"""Scripts and styles that a part of the page fetches when it is shown, and not with the page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from starlette.applications import Starlette

FOLDER = Path(__file__).parent
# Names under /parts/, and nothing else is served there.
PARTS = {name: FOLDER / "map" / name for name in ("leaflet.js", "leaflet.css")}


class _Parts(StaticFiles):
    """Serves PARTS, with ETags, so that a browser that has a file does not fetch it again."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Return the file of a name, and its status; "" and None where there is none."""
        file = PARTS.get(path)
        return (str(file), file.stat()) if file else ("", None)


def serve_parts(app: Starlette) -> None:
    """Serve PARTS under /parts/, before the app's own routes, the last of which takes any path."""
    app.router.routes.insert(0, Mount("/parts", _Parts(check_dir=False)))
