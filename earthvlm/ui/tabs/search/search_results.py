"""What the page shows of a search: a summary, and each scene's thumbnail and caption."""

from __future__ import annotations

import hashlib
import html
import tempfile
from collections.abc import Sequence
from pathlib import Path

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.scenes.places.formatting import describe_place
from earthvlm.search.index import SceneResult, SearchResults
from earthvlm.serving.service import Example
from earthvlm.storage.files import write_atomically
from earthvlm.ui.session import SearchQuery
from earthvlm.ui.tabs.search.filters import describe_filter

# Texts about other things than scenes stay below this cosine similarity: the nearest bundled scene
# is at 0.12 for "pizza with cheese" and at 0.39 for "river".
MIN_SIMILARITY = 0.2
COMPARISONS = ("caption", "scene", "example")


class ThumbnailFiles:
    """Thumbnails as files for galleries, each written once.

    Gradio would encode a picture each time it is shown, which took most of a search's time.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="earthvlm-thumbnails-")

    def path(self, result: SceneResult) -> str | None:
        """Return the path of a result's thumbnail, after writing it if needed; None if it has none.

        Several searches may write the same thumbnail at once, so each replaces it atomically.
        """
        if result.thumbnail is None:
            return None
        name = hashlib.sha256(result.image_id.encode()).hexdigest()[:32]
        path = Path(self._folder.name, f"{name}.png")
        if not path.is_file():
            with write_atomically(path, durable=False) as temporary:
                result.thumbnail.save(temporary, "PNG", compress_level=1)
        return str(path)

    def items(self, results: Sequence[SceneResult]) -> list[tuple[str | None, str]]:
        """Return results as a gallery shows them: the thumbnail's path, and the caption."""
        return [(self.path(result), describe_result(result)) for result in results]


def describe_result(result: SceneResult) -> str:
    """Return a result's similarities with their ranks, its place and split, and its caption."""
    scores = []
    for name in COMPARISONS:
        similarity, rank = getattr(result, f"{name}_similarity"), getattr(result, f"{name}_rank")
        if similarity is not None:
            scores.append(f"{name} {similarity:.2f}" + (f" (rank {rank})" if rank else ""))
    place = describe_place(result.longitude, result.latitude, decimals=2)
    lines = [
        *scores,
        " · ".join(part for part in (place, result.split) if part),
        result.caption or "no caption",
    ]
    return "\n".join(line for line in lines if line)


def summarize_search(
    query: SearchQuery, results: Sequence[SceneResult], total: int, where: SceneFilter
) -> str:
    """Return HTML: how many scenes are shown for which query and filter, and any warning.

    total: how many scenes the index has.
    """
    filters = "".join(f", {html.escape(phrase)}" for phrase in describe_filter(where))
    count, best = len(results), max(map(_best_similarity, results), default=1.0)
    if not results:
        summary = "No scene matches" + (f" the filters: {filters.lstrip(', ')}" if filters else "")
    elif query is None:
        summary = f"{count} of {total} scenes{filters}"
    else:
        parts = query if isinstance(query, tuple) else (query,)
        names = " and ".join(_describe_query(part) for part in parts)
        summary = f"{count} scene{'s' if count > 1 else ''} {names}{filters}"
        if best < MIN_SIMILARITY:
            summary += f". None matches well: the best cosine similarity is {best:.2f}"
    warning = results.warning if isinstance(results, SearchResults) else ""
    return summary + (f'<p class="warning">{html.escape(warning)}</p>' if warning else "")


def _best_similarity(result: SceneResult) -> float:
    similarities = [getattr(result, f"{name}_similarity") for name in COMPARISONS]
    return max((each for each in similarities if each is not None), default=1.0)


def _describe_query(query: str | Example | SceneResult) -> str:
    if isinstance(query, str):
        return f"closest to <strong>{html.escape(query)}</strong>"
    name = query.image_id if isinstance(query, SceneResult) else query.name
    return f"most similar to <strong>{html.escape(name)}</strong>"
