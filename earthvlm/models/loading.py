"""Loading models of transformers, one at a time."""

from __future__ import annotations

import threading

# While transformers loads a model, its classes do not tie weights, and torch makes tensors of
# another type, in all threads. Two that load at once lose weights, and every later one can too.
LOADING = threading.Lock()
