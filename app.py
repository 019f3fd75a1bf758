"""The web app's entry, here and on a Space: load a bridge and scenes, then serve the page.

EARTHVLM_BRIDGE and EARTHVLM_EMBEDDINGS name another bridge and embedding dataset than the bundled
ones. Where the Hub does not answer within seconds, the app starts with the bundled ones. Where a
Space has mounted the dataset in the folder EARTHVLM_EMBEDDINGS_MOUNT, nothing is downloaded for it.
HF_TOKEN is the Hub's, for private repositories; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT are
Gradio's.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import sys
import warnings
from pathlib import Path

# Read when gradio is imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# After each request Gradio makes a table of the last 10,000, for a statistics page that this app
# does not serve. The table takes memory, and time from the next request.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "128")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))

# Read when torch is imported. By default its threads spin while they wait for each other: next to
# the busy threads of this server, a search of 14 ms of processor time took 250 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Imported modules and loaded models stay in memory. Without garbage collection they load in three
# quarters of the time; gc.freeze leaves them out of later collections.
gc.disable()

from earthvlm.storage.hub import BUNDLED  # noqa: E402
from earthvlm.ui import LAUNCH_OPTIONS, build_app, load_models, warm_up  # noqa: E402
from earthvlm.ui.security.log_limits import limit_log  # noqa: E402

# glibc's mallopt(M_ARENA_MAX): by default it makes up to eight heaps a processor, and one heap
# cannot use memory that is free in another.
M_ARENA_MAX, HEAPS = -8, 2


def _find_mounted() -> str | None:
    """Return the folder where the embedding dataset is mounted, if it is."""
    folder = os.environ.get("EARTHVLM_EMBEDDINGS_MOUNT")
    return folder if folder and any(Path(folder).glob("*.parquet")) else None


def main() -> int:
    """Serve the page until it is interrupted; return 2 after one sentence on stderr."""
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such setting
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    limit_log()
    # Gradio warns of handlers that are no MCP tools; see `page_only` in earthvlm/ui/session.py.
    warnings.filterwarnings("ignore", message="This MCP server includes a tool", module="gradio")
    try:
        models = load_models(
            os.environ.get("EARTHVLM_BRIDGE") or BUNDLED,
            _find_mounted() or os.environ.get("EARTHVLM_EMBEDDINGS") or BUNDLED,
        )
        page = build_app(models)
    except (FileNotFoundError, MemoryError, ValueError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    warm_up(models)
    gc.freeze()
    gc.enable()
    page.launch(**LAUNCH_OPTIONS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
