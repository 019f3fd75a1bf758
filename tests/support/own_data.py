"""Rewrites a folder in ChatEarthNet's layout in the other forms that training takes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS

RGB = "s2_rgb_images"


def list_rows(data: Path) -> Iterator[dict]:
    """The tiles of a folder in ChatEarthNet's layout: name, split, caption and labels."""
    labels = {}
    for name in ("labels.json", "facts.json"):
        if (data / name).is_file():
            labels = json.loads((data / name).read_text())
    for split in ("train", "val"):
        path = data / "json_files" / f"ChatEarthNet_caps_35_{split}.json"
        for entry in json.loads(path.read_text()):
            name = entry.get("image") or entry["image_id"]
            row = {"name": name, "split": split, "caption": entry["caption"]}
            yield row | {"labels": labels.get(name)}


def _link_images(data: Path, folder: Path) -> str:
    """Link the images into another folder; return where the RGB images are in it."""
    folder.mkdir(parents=True)
    for name in CHATEARTHNET_FOLDERS:
        (folder / name).symlink_to(data / name)
    return f"{RGB}/s2_images" if (data / RGB / "s2_images").is_dir() else RGB


def write_metadata_folder(data: Path, folder: Path, form: str = "jsonl") -> None:
    """Write Hugging Face's folder convention. form: "jsonl", "csv" or "parquet"."""
    images = _link_images(data, folder)
    rows = [
        {
            "file_name": f"{images}/{row['name']}",
            "text": row["caption"],
            "split": row["split"],
            "labels": row["labels"],
        }
        for row in list_rows(data)
    ]
    path = folder / f"metadata.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "csv":
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(row | {"labels": json.dumps(row["labels"])} for row in rows)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_conversation_files(data: Path, folder: Path) -> None:
    """Write LLaVA's conversation files, one a split, with the labels next to them."""
    images = _link_images(data, folder)
    rows = list(list_rows(data))
    for split in ("train", "val"):
        entries = [
            {
                "id": number,
                "image": f"{images}/{row['name']}",
                "conversations": [
                    {"from": "human", "value": "<image>\nDescribe this image."},
                    {"from": "gpt", "value": row["caption"]},
                ],
            }
            for number, row in enumerate(rows)
            if row["split"] == split
        ]
        (folder / f"made_{split}.json").write_text(json.dumps(entries))
    labels = {row["name"]: row["labels"] for row in rows if row["labels"]}
    (folder / "labels.json").write_text(json.dumps(labels))


def write_parquet(rows: list[dict], images: list[bytes]) -> bytes:
    """A Parquet file with images in it, ten rows a group, as `datasets` writes them."""
    pictures = [{"bytes": image, "path": f"{n}.png"} for n, image in enumerate(images)]
    table = pa.Table.from_pylist(rows).append_column("image", pa.array(pictures))
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=10)
    return file.getvalue()
