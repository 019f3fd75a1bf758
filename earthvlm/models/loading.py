"""Loading models of transformers, one at a time and without its progress bars."""

from __future__ import annotations

import threading

# While transformers loads a model, its classes do not tie weights, and torch makes tensors of
# another type, in all threads. Two that load at once lose weights, and every later one can too.
LOADING = threading.Lock()


def hide_progress_bars() -> None:
    """Let transformers draw no bar while it loads weights, for programs whose stderr is read."""
    from transformers.utils import logging

    logging.disable_progress_bar()
