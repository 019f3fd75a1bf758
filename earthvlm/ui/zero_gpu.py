"""A GPU for each call on a Hugging Face ZeroGPU Space; elsewhere nothing of the kind."""

from __future__ import annotations

import os
from collections.abc import Callable

borrow_gpu: Callable[[Callable], Callable] | None = None

# Set by the Space's machine. Calls then run in another process: what they take and give is pickled.
if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true"):
    # Before any model is loaded: with it torch has a GPU to load them to.
    import spaces

    borrow_gpu = spaces.GPU
