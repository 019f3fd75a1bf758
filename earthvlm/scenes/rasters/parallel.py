"""Work on several rasters side by side: GDAL fetches and decodes outside of Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from earthvlm.scenes.rasters.raster_limits import GDAL_OPTIONS

REMOTE_THREADS = 8  # requests to a server at a time, about as many as a browser makes
# One where the environment asks for one.
LOCAL_THREADS = 1 if os.environ.get("GDAL_NUM_THREADS") == "1" else 2
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    task: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> list[Result]:
    """Return the task's result for each item, in order, working on `threads` items at a time.

    Raises what the task raises for the first item for which it fails.
    """
    if threads < 2 or len(items) < 2:
        return [task(item) for item in items]
    import rasterio

    def run(item: Item) -> Result:
        # GDAL's options are a thread's own. These threads are all that there are to be.
        with rasterio.Env(**GDAL_OPTIONS | {"GDAL_NUM_THREADS": "1"}):
            return task(item)

    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(run, items))
