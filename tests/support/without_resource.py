"""A plugin of pytest that takes away what Windows lacks: the module `resource`, and all forking."""

from __future__ import annotations

import sys

import psutil  # noqa: F401  # on Linux it needs the module

sys.modules["resource"] = None  # type: ignore[assignment]
# The process that imports this was forked, by a module that needs the other.
sys.modules.pop("tests.support.forked_programs", None)
