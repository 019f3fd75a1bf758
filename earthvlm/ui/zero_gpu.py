"""A GPU for each call on a Hugging Face ZeroGPU Space; elsewhere nothing of the kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable)

# Set by the Space's machine. Calls then run in another process: what they take and give is pickled.
ON_ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def on_gpu(function: Function) -> Function:
    """Let each call of a function or generator have a GPU where they are lent by the call."""
    if not ON_ZERO_GPU:
        return function
    import spaces

    return spaces.GPU(function)
