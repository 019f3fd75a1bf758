"""Start the app: what libraries read when they are imported, then the models, then the page.

EARTHVLM_BRIDGE and EARTHVLM_EMBEDDINGS name another bridge and embedding dataset than the
bundled ones. Where the Hub does not answer within seconds, the app starts with the bundled
ones. Where a Space has mounted the dataset in the folder EARTHVLM_EMBEDDINGS_MOUNT, nothing is
downloaded for it. EARTHVLM_BASEMAP names an online map (ui/basemap.py). HF_TOKEN is the Hub's, for
private repositories; GRADIO_SERVER_NAME, GRADIO_SERVER_PORT and GRADIO_TEMP_DIR, the folder of
uploads, are Gradio's.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path

from earthvlm.scenes.memory import limit_heaps
from earthvlm.storage.hub import BUNDLED

# Each is read when its library is imported.
LIBRARY_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    # After each request Gradio makes a table of the last 10,000, for a statistics page that this
    # app does not serve. The table takes memory, and time from the next request.
    "GRADIO_ANALYTICS_MAX_EVENTS": "128",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),
    # By default torch's threads spin while they wait for each other: next to the busy threads of
    # this server, a search of 14 ms of processor time took 250 ms.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def launch_app(
    bridge: str | None = None, embeddings: str | None = None, *, open_browser: bool = False
) -> None:
    """Serve the page until it is interrupted.

    bridge, embeddings: a folder, a Hub repository or "bundled"; None takes the environment's.
    Raises ValueError or FileNotFoundError for unknown names and damaged files, OSError where the
    port is taken.
    """
    for name, value in LIBRARY_SETTINGS.items():
        os.environ.setdefault(name, value)
    limit_heaps()
    keep_uploads_apart()
    # Imported modules and loaded models stay in memory. Without garbage collection they load in
    # three quarters of the time; gc.freeze leaves them out of later collections.
    gc.disable()
    try:
        from earthvlm.models.loading import hide_progress_bars
        from earthvlm.search.engines.factory import AUTO
        from earthvlm.ui.app import LAUNCH_OPTIONS, build_app, warm_up
        from earthvlm.ui.models import load_models
        from earthvlm.ui.security.log_limits import limit_log

        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
        limit_log()
        hide_progress_bars()
        # Gradio warns of handlers that are no MCP tools; see `page_only` in ui/session.py.
        warnings.filterwarnings("ignore", message="This MCP server includes a tool")
        models = load_models(
            bridge or os.environ.get("EARTHVLM_BRIDGE") or BUNDLED,
            embeddings or _find_mounted() or os.environ.get("EARTHVLM_EMBEDDINGS") or BUNDLED,
            os.environ.get("EARTHVLM_SEARCH_ENGINE") or AUTO,
        )
        page = build_app(models)
        warm_up(models)
        gc.freeze()
    finally:
        gc.enable()
    page.launch(**LAUNCH_OPTIONS, inbrowser=open_browser)


def keep_uploads_apart() -> None:
    """Keep uploads in a folder of this process alone, unless GRADIO_TEMP_DIR names one.

    Gradio's own folder is the same for all apps of a machine: an upload that one app has opened,
    and deletes, can be the file that a visitor of another one is about to open.
    """
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="earthvlm-uploads-")  # which no other user may read
        os.environ["GRADIO_TEMP_DIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _find_mounted() -> str | None:
    """Return the folder where the embedding dataset is mounted, if it is."""
    folder = os.environ.get("EARTHVLM_EMBEDDINGS_MOUNT")
    return folder if folder and any(Path(folder).glob("*.parquet")) else None
