"""Leaves out a script of Gradio that this page never runs.

Gradio's galleries can show videos, so their script imports hls.js, a player of streamed videos:
half a megabyte that a browser would load with the first page. The page gets a module with the same
exports instead, which says that no streamed video can be played.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

ASSETS = Path(gr.__file__).parent / "templates" / "frontend" / "assets"
PLAYER = "hls-*.js"
EXPORTS = re.compile(r"export\s*\{([^{}]*)\};?\s*$")


def leave_out_player(app: Starlette) -> None:
    """Answer for the player with its stand-in, where this version of Gradio has the player."""
    for name, content in write_stand_ins(ASSETS).items():

        async def answer(_: Request, content: str = content) -> Response:
            # A new one for each request: middleware changes the headers of what it passes on.
            return Response(content, media_type="text/javascript")

        app.router.routes.insert(0, Route(f"/assets/{name}", answer))


def write_stand_ins(assets: Path) -> dict[str, str]:
    """Return the stand-in of each script of the player, by its name in the folder of scripts."""
    found = {}
    for file in assets.glob(PLAYER):
        exported = EXPORTS.search(file.read_text("utf-8"))
        if exported:
            names = [pair.split()[-1] for pair in exported[1].split(",")]
            pairs = ", ".join(f"cannotPlay as {name}" for name in names)
            found[file.name] = f"const cannotPlay = () => false;\nexport {{ {pairs} }};\n"
    return found
