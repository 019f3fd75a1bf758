"""What the page shows of a search: a summary, and a card for each scene that was found."""

from __future__ import annotations

import html
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from PIL import Image

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.scenes.places.formatting import describe_count, describe_date, describe_place
from earthvlm.scenes.places.gazetteer import Place, describe_nearest
from earthvlm.search.index import SceneResult, SearchResults
from earthvlm.serving.service import Example
from earthvlm.ui.html.data_uris import make_data_uri
from earthvlm.ui.search_query import SearchQuery
from earthvlm.ui.tabs.search.filters import describe_filter, name_group

# Texts about other things than scenes stay below this cosine similarity: the nearest bundled scene
# is at 0.12 for "pizza with cheese" and at 0.39 for "river".
MIN_SIMILARITY = 0.2
COMPARISONS = {
    "caption": "Words and its description",
    "scene": "Query and its picture",
    "example": "Marked scenes and its picture",
}
PAGE_SIZE = 12
# Drawn here, since not every system has a font with thumbs.
_THUMB = (
    '<svg viewBox="0 0 20 20" width="16" height="16" fill="currentColor" aria-hidden="true"{}>'
    '<path d="M2 9h3v8H2zM6.5 9 10 2.5c1.6 0 2.2 1.2 1.9 2.6L11.3 8H16c1.3 0 2 1 1.7 2.2l-1.4 5.4'
    'c-.2.9-1 1.4-1.9 1.4H6.5z"/></svg>'
)
THUMB_UP, THUMB_DOWN = _THUMB.format(""), _THUMB.format(' style="transform: rotate(180deg)"')
MAX_THUMBNAILS = 600  # about 4 KB each
THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 256, 80


class Thumbnails:
    """Thumbnails as data URIs, the latest of them kept, so that none is encoded at each search."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, str] = OrderedDict()

    def source(self, result: SceneResult) -> str:
        """Return a result's thumbnail as a data URI; "" where it has none."""
        if result.thumbnail is None:
            return ""
        source = self._sources.pop(result.image_id, None) or encode_thumbnail(result.thumbnail)
        self._sources[result.image_id] = source
        while len(self._sources) > MAX_THUMBNAILS:
            self._sources.popitem(last=False)
        return source


def encode_thumbnail(picture: Image.Image) -> str:
    """Return a picture as a data URI, shrunk to THUMBNAIL_SIDE."""
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return make_data_uri(small, "webp", quality=THUMBNAIL_QUALITY)


def title_of(result: SceneResult) -> str:
    """Return what a scene is called: "Near Malmö, Sweden", or its name where it has no place."""
    place = describe_nearest(result.longitude, result.latitude)
    return place[:1].upper() + place[1:] if place else result.image_id


def describe_match(result: SceneResult) -> str:
    """Return how well a scene matches, as in "64 % match"; "" without a search."""
    return "" if result.match is None else f"{100 * result.match:.0f} % match"


def show_results(
    results: Sequence[SceneResult],
    page: int,
    thumbnails: Thumbnails,
    marks: Mapping[str, bool],
) -> str:
    """Return HTML of one page of results, each a card, and of buttons to the other pages.

    page: from 0. thumbnails: of these results, which hold pictures. marks: whether a scene was
    marked as wanted or as unwanted, by its image_id.
    """
    first = page * PAGE_SIZE
    shown = results[first : first + PAGE_SIZE]
    cards = "".join(
        _show_card(result, number, thumbnails.source(result), marks.get(result.image_id))
        for number, result in enumerate(shown, start=first)
    )
    return (
        f'<ol class="results" start="{first + 1}" aria-label="Scenes found">{cards}</ol>'
        f"{_show_pager(page, len(results))}"
    )


def _show_card(result: SceneResult, number: int, source: str, mark: bool | None) -> str:
    title, match = html.escape(title_of(result)), describe_match(result)
    date = describe_date(result.date) if result.date else "date unknown"
    facts = " · ".join([*([f"<b>{match}</b>"] if match else []), date])
    caption = f'<p class="caption">{html.escape(result.caption)}</p>' if result.caption else ""
    picture = f'<img src="{source}" alt="" loading="lazy">' if source else '<span class="none">'
    picture += "" if source else "no picture</span>"
    is_mapped = result.longitude is not None and result.latitude is not None
    locate = _button("locate", number, f"Show on the map: {title}", "Map") if is_mapped else ""
    thumbs = "".join(_thumb(number, title, wanted, mark) for wanted in (True, False))
    return (
        f'<li class="result"><button type="button" class="open" data-do="open" '
        f'data-index="{number}" aria-label="Open in Chat: {title}, {date}">{picture}</button>'
        f'<h3>{title}</h3><p class="facts">{facts}</p>{caption}'
        f'<div class="marks">{thumbs}{locate}</div>'
        f"{_show_numbers(result)}</li>"
    )


def _thumb(number: int, title: str, wanted: bool, mark: bool | None) -> str:
    label = f"{'More' if wanted else 'Less'} like this: {title}"
    pressed = "true" if mark is wanted else "false"
    sign = THUMB_UP if wanted else THUMB_DOWN
    return _button("like" if wanted else "dislike", number, label, sign, pressed)


def _button(action: str, number: int, label: str, sign: str, pressed: str = "") -> str:
    state = f' aria-pressed="{pressed}"' if pressed else ""
    return (
        f'<button type="button" data-do="{action}" data-index="{number}" aria-label="{label}" '
        f'title="{label.partition(":")[0]}"{state}>{sign}</button>'
    )


def _show_numbers(result: SceneResult) -> str:
    """Return HTML of the folded details: name, position, similarities with ranks, source."""
    rows = {"Name": result.image_id}
    if place := describe_place(result.longitude, result.latitude):
        rows["Position"] = place
    for name, label in COMPARISONS.items():
        similarity, rank = getattr(result, f"{name}_similarity"), getattr(result, f"{name}_rank")
        if similarity is not None:
            rows[label] = f"cosine {similarity:.2f}" + (f", rank {rank:,}" if rank else "")
    rows["Group"] = name_group(result.split)
    if result.source:
        rows["Source"] = result.source
    items = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in rows.items()
    )
    return f"<details><summary>Details</summary><dl>{items}</dl></details>"


def _show_pager(page: int, count: int) -> str:
    last = max(count - 1, 0) // PAGE_SIZE
    if not last:
        return ""
    first = page * PAGE_SIZE
    back, on = ("" if ok else " disabled" for ok in (page > 0, page < last))
    return (
        '<nav class="pager" aria-label="Pages of results">'
        f'<button type="button" data-do="turn" data-page="{page - 1}"{back}>Previous</button>'
        f"<span>{first + 1} to {min(first + PAGE_SIZE, count)} of {count}</span>"
        f'<button type="button" data-do="turn" data-page="{page + 1}"{on}>Next</button></nav>'
    )


def sort_results(results: Sequence[SceneResult], order: str) -> list[SceneResult]:
    """Return results in one of SORTS' orders; scenes without a date or place come last."""
    if order in ("newest first", "oldest first"):
        dated = [(result.date, result) for result in results if result.date is not None]
        dated.sort(key=lambda pair: pair[0], reverse=order == "newest first")
        undated = [result for result in results if result.date is None]
        return [*(result for _, result in dated), *undated]
    if order.startswith("place"):
        return sorted(results, key=lambda result: (result.longitude is None, title_of(result)))
    return sorted(results, key=lambda result: -(result.match or 0.0))


def summarize_search(
    query: SearchQuery,
    results: Sequence[SceneResult],
    total: int,
    where: SceneFilter,
    near: Place | None = None,
    nearest: str = "",
) -> str:
    """Return HTML: how many scenes were found for which query and filter, and any warning.

    total: how many scenes the index has. near: the place that results lie near, whose box is that
    of `where`. nearest: where the nearest scene is, if none was found.
    """
    phrases = describe_filter(where, near)
    filters = "".join(f", {html.escape(phrase)}" for phrase in phrases)
    count, best = len(results), max(map(_best_similarity, results), default=1.0)
    if not results:
        summary = "No scene matches" + (f" the filters: {filters.lstrip(', ')}" if filters else "")
        summary += html.escape(nearest)
    elif not query:
        summary = f"{count:,} of {describe_count(total, 'scene')}{filters}"
    else:
        summary = f"{describe_count(count, 'scene')} {_describe_query(query)}{filters}"
        if best < MIN_SIMILARITY:
            summary += ". None matches well: try other words"
    warning = results.warning if isinstance(results, SearchResults) else ""
    return summary + (f'<p class="warning">{html.escape(warning)}</p>' if warning else "")


def _best_similarity(result: SceneResult) -> float:
    similarities = [getattr(result, f"{name}_similarity") for name in COMPARISONS]
    return max((each for each in similarities if each is not None), default=1.0)


def _describe_query(query: SearchQuery) -> str:
    parts = []
    if query.words:
        parts.append(f"closest to <strong>{html.escape(query.words)}</strong>")
    if len(query.like) == 1 and not query.unlike:
        example = query.like[0]
        name = example.name if isinstance(example, Example) else example.image_id
        parts.append(f"most similar to <strong>{html.escape(name)}</strong>")
    elif query.like:
        parts.append(f"most similar to {describe_count(len(query.like), 'wanted scene')}")
    if query.unlike:
        parts.append(f"unlike {describe_count(len(query.unlike), 'unwanted scene')}")
    return " and ".join(parts)
