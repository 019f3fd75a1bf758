"""The web app's entry, here and on a Space: load a bridge and scenes, then serve the page.

EARTHVLM_BRIDGE and EARTHVLM_EMBEDDINGS name another bridge and embedding dataset than the bundled
ones; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT are Gradio's own.
"""

from __future__ import annotations

import logging
import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.retrieval import SceneIndex
from earthvlm.ui import LAUNCH_OPTIONS, build_app, warm_up


def main() -> None:
    """Serve the page until it is interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    bridge = OlmoEarthVLMBridge.from_pretrained(os.environ.get("EARTHVLM_BRIDGE", "bundled"))
    index = SceneIndex.from_pretrained(os.environ.get("EARTHVLM_EMBEDDINGS", "bundled"))
    page = build_app(bridge, index)
    warm_up(bridge, index)
    page.launch(**LAUNCH_OPTIONS)


if __name__ == "__main__":
    main()
