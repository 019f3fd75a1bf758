"""Rows of an embedding dataset, made of scenes by a bridge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthvlm.scenes.scene import Scene

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge

THUMBNAIL_SIZE = 192  # pixels, about the width of a picture in the app's gallery
SCENES_FOLDER = "scenes"
SPLIT = "scenes"


def make_rows(
    folder: Path,
    scenes: Sequence[Scene],
    bridge: OlmoEarthVLMBridge,
    *,
    splits: Sequence[str] | None = None,
    sources: Sequence[str | None] | None = None,
    captions: bool = True,
    keep_scenes: bool = True,
    batch_size: int = 16,
    report: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Embed scenes with a bridge: a row for each, by EMBEDDING_SCHEMA's columns.

    A scene's name becomes its image_id, "scenes" its split where none is given. captions: whether
    the bridge describes them, too. keep_scenes: whether all bands are written, as a GeoTIFF in the
    folder's `scenes/`. `report` is called with how many are done and how many there are.
    """
    from earthvlm.generation.sampling import DEFAULT_PROMPT
    from earthvlm.models.text_encoder import embed_sentences

    if keep_scenes:
        (folder / SCENES_FOLDER).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(scenes), batch_size):
        batch = list(scenes[start : start + batch_size])
        said = [""] * len(batch)
        if captions:
            said = [caption.strip() for caption in bridge.generate(batch, DEFAULT_PROMPT)]
        scene_vectors = bridge.embed(batch)
        caption_vectors = embed_sentences(said) if captions else said
        for index, scene in enumerate(batch):
            scene_file = f"{SCENES_FOLDER}/{scene.name}.tif" if keep_scenes else None
            if scene_file:
                scene.save(folder / scene_file)
            row = {
                "image_id": scene.name,
                "caption": said[index] or None,
                "split": splits[start + index] if splits else SPLIT,
                "longitude": scene.longitude,
                "latitude": scene.latitude,
                "thumbnail": scene.thumbnail(THUMBNAIL_SIZE),
                "scene_embedding": scene_vectors[index],
                "caption_embedding": caption_vectors[index] if said[index] else None,
                "source": sources[start + index] if sources else None,
                "scene_file": scene_file,
                "date": scene.date,
            }
            rows.append(row)
        if report:
            report(len(rows), len(scenes))
    return rows


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for no names, one given twice, and one that is no file name."""
    if not names:
        raise ValueError("an index needs at least one scene; none was given")
    for name in names:
        if Path(name).name != name or "\\" in name or not name.isprintable():
            raise ValueError(f"the scene name {name!r} is no file name; give the scene another")
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"two scenes are named {twice!r}; every scene needs a name of its own")
