"""Make the rows of an embedding dataset from scenes, with a bridge."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthvlm.metrics.agreement import drop_denials, drop_false_denials
from earthvlm.scenes.analysis.spectral_indices import find_cloud, measure
from earthvlm.scenes.product import Product
from earthvlm.scenes.scene import Scene

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge

THUMBNAIL_SIZE = 192  # pixels, about the width of a thumbnail in the app's gallery
SCENES_FOLDER = "scenes"
SPLIT = "scenes"
CLEAR, CLOUDY = "clear", "cloudy"  # splits of an indexed folder
MIN_CLOUDY_SHARE = 0.6  # of a tile's pixels with data


def make_rows(
    folder: Path,
    scenes: Sequence[Scene],
    bridge: OlmoEarthVLMBridge,
    *,
    splits: Sequence[str] | None = None,
    split_clouds: bool = False,
    sources: Sequence[str | None] | None = None,
    captions: bool = True,
    keep_scenes: bool = True,
    batch_size: int = 16,
    report: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Embed scenes with a bridge, and return a row of EMBEDDING_SCHEMA's columns for each.

    Args:
        folder: of the dataset.
        scenes: their names become image_ids.
        bridge: makes the embeddings and captions.
        splits: one for each scene (default: "scenes").
        split_clouds: whether cloudy scenes go into the split "cloudy" and others into "clear".
        sources: the owner and licence of each scene.
        captions: whether the bridge describes each scene, without denials of covers that were
            measured or mapped.
        keep_scenes: whether all bands are written as a GeoTIFF into the folder's `scenes/`.
        batch_size: scenes embedded at once.
        report: is called with the number of finished scenes and of all scenes.
    """
    if keep_scenes:
        (folder / SCENES_FOLDER).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(scenes), batch_size):
        batch = list(scenes[start : start + batch_size])
        texts = [""] * len(batch)
        if captions:
            texts = write_captions(batch, bridge)
        scene_vectors = bridge.embed(batch)
        caption_vectors = embed_captions(texts) if captions else None
        for index, scene in enumerate(batch):
            cloud = measure_cloud(scene)
            row = describe_scene(scene, cloud=cloud)
            if keep_scenes:
                row["scene_file"] = f"{SCENES_FOLDER}/{scene.name}.tif"
                scene.save(folder / row["scene_file"])
            row["split"] = splits[start + index] if splits else SPLIT
            if split_clouds:
                row["split"] = CLOUDY if (cloud or 0) >= MIN_CLOUDY_SHARE else CLEAR
            row["source"] = sources[start + index] if sources else None
            row["scene_embedding"] = scene_vectors[index]
            if caption_vectors is not None and texts[index]:
                row |= {"caption": texts[index], "caption_embedding": caption_vectors[index]}
            rows.append(row)
        if report:
            report(len(rows), len(scenes))
    return rows


def describe_scene(
    scene: Scene, thumbnail_size: int = THUMBNAIL_SIZE, *, cloud: float | None = None
) -> dict[str, Any]:
    """Return the columns of EMBEDDING_SCHEMA that are known from the scene alone.

    cloud: the share that `measure_cloud` returned; None measures it.
    """
    if cloud is None and not scene.is_rgb_only:
        cloud = measure_cloud(scene)
    footprint = scene.grid.footprint(scene.height, scene.width) if scene.grid else None
    product = scene.product or Product()
    time = product.sensing_time
    if time is None and scene.date is not None:
        time = datetime.datetime.combine(scene.date, datetime.time(), datetime.UTC)
    return {
        "image_id": scene.name,
        "longitude": scene.longitude,
        "latitude": scene.latitude,
        "thumbnail": scene.thumbnail(thumbnail_size),
        "date": scene.date,
        "geometry": footprint.wkb if footprint else None,
        "datetime": time,
        "product_id": product.product_id,
        "mgrs_tile": product.mgrs_tile,
        "cloud": None if scene.is_rgb_only else cloud,
    }


def write_captions(scenes: Sequence[Scene], bridge: OlmoEarthVLMBridge) -> list[str]:
    """Describe scenes, without denials of covers that were measured or mapped."""
    from earthvlm.generation.sampling import DEFAULT_PROMPT

    maps = [
        bridge.map_land_cover(scene) if bridge.config.segmentation_head else None
        for scene in scenes
    ]
    return [
        drop_false_denials(text.strip(), measure(scene), cover_map)
        for text, scene, cover_map in zip(
            bridge.generate(scenes, DEFAULT_PROMPT), scenes, maps, strict=True
        )
    ]


def embed_captions(captions: Sequence[str], device: str = "cpu") -> np.ndarray:
    """Embed captions for search, float32 `[N, 384]`, by what they say there is."""
    from earthvlm.models.text_encoder import embed_sentences

    return embed_sentences([drop_denials(text) for text in captions], device)


def measure_cloud(scene: Scene) -> float | None:
    """Return the share of the pixels with data that cloud covers; None where no band tells."""
    try:
        cloud = find_cloud(scene)
    except ValueError:
        return None
    return float(cloud.mean() if scene.valid is None else cloud[scene.valid].mean())


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for no names, a repeated one, and one that cannot be a file name."""
    if not names:
        raise ValueError("an index needs at least one scene; none was given")
    for name in names:
        if Path(name).name != name or "\\" in name or not name.isprintable():
            raise ValueError(
                f"the scene name {name!r} cannot be a file name; give the scene another"
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"two scenes are named {twice!r}; every scene needs a name of its own")
