"""What is told of a search: each scene found, and what was looked for."""

from __future__ import annotations

import hashlib
import html
import tempfile
from collections.abc import Sequence
from pathlib import Path

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.scenes.formatting import describe_place
from earthvlm.search.index import SceneResult
from earthvlm.serving.service import Example
from earthvlm.ui.session import SearchQuery
from earthvlm.ui.tabs.filters import describe_filter

# Sentences about other things than a scene shows lie below it, in the sentence model's cosine:
# "pizza with cheese" at 0.12 from the nearest bundled scene, "river" at 0.39.
FAR_COSINE = 0.2


class ThumbnailFiles:
    """Thumbnails as files, each written once, for galleries to show.

    Gradio would encode a picture anew whenever it is shown, which took most of a search's time.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="earthvlm-thumbnails-")

    def path(self, result: SceneResult) -> str | None:
        """Return a result's thumbnail, written where it is not there yet; None for none."""
        if result.thumbnail is None:
            return None
        name = hashlib.sha256(result.image_id.encode()).hexdigest()[:32]
        path = Path(self._folder.name, f"{name}.png")
        if not path.is_file():
            # Written aside and moved, since several searches may find the same scene at once.
            with tempfile.NamedTemporaryFile(dir=self._folder.name, delete=False) as file:
                result.thumbnail.save(file, "PNG", compress_level=1)
            Path(file.name).replace(path)
        return str(path)


def describe_result(result: SceneResult) -> str:
    """Return a result's text: cosine similarity and rank by each comparison, place, caption."""
    compared = []
    for name in ("caption", "scene", "example"):
        similarity, rank = getattr(result, f"{name}_similarity"), getattr(result, f"{name}_rank")
        if similarity is not None:
            compared.append(f"{name} {similarity:.2f}" + (f" #{rank}" if rank else ""))
    place = describe_place(result.longitude, result.latitude, decimals=2)
    told = [part for part in (place, result.split) if part]
    lines = [" · ".join(compared), " · ".join(told), result.caption or "no caption"]
    return "\n".join(line for line in lines if line)


def describe_search(
    query: SearchQuery, results: Sequence[SceneResult], total: int, where: SceneFilter
) -> str:
    """Return HTML: one line that says what is shown below it, and whether it is far from that."""
    limits, found = html.escape(describe_filter(where)), len(results)
    if not found:
        return f"No scene fits: none is {limits.lstrip(', ')}" if limits else "No scene fits"
    if query is None:
        return f"{found} of the {total} scenes there are{limits}"
    named = (_name(each) for each in (query if isinstance(query, tuple) else (query,)))
    told = f"{found} scene{'s' if found > 1 else ''} {' and '.join(named)}{limits}"
    nearest = max((_nearest(result) for result in results), default=1.0)
    return told + (f"; none is close, at a cosine of {nearest:.2f}" if nearest < FAR_COSINE else "")


def _nearest(result: SceneResult) -> float:
    compared = (result.caption_similarity, result.scene_similarity, result.example_similarity)
    return max((each for each in compared if each is not None), default=1.0)


def _name(query: str | Example | SceneResult) -> str:
    if isinstance(query, str):
        return f"nearest to <strong>{html.escape(query)}</strong>"
    name = query.image_id if isinstance(query, SceneResult) else query.name
    return f"most like <strong>{html.escape(name)}</strong>"
