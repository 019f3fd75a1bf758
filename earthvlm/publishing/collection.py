"""A collection on the Hub, from a file that lists what belongs together.

title: earthvlm
namespace: owner
description: Chat with Sentinel-2 scenes and search among them
items:
  - {type: model, id: owner/earthvlm, note: the bridge}
  - {type: dataset, id: owner/embeddings}
  - {type: space, id: owner/earthvlm}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from earthvlm.storage.hub_errors import plain_errors

ITEM_TYPES = ("model", "dataset", "space", "paper")
MAX_DESCRIPTION = 150  # characters, of the Hub


@dataclass(frozen=True)
class CollectionItem:
    """A repository or a paper, by the Hub's name, with a note for readers."""

    type: str
    id: str
    note: str | None = None


@dataclass(frozen=True)
class Collection:
    """What a collection's file says."""

    title: str
    namespace: str
    items: tuple[CollectionItem, ...]
    description: str = ""

    @classmethod
    def read(cls, path: Path) -> Collection:
        """Read a file. Raises FileNotFoundError without one, ValueError for other content."""
        try:
            entries = yaml.safe_load(path.read_text("utf-8"))
            items = tuple(CollectionItem(**entry) for entry in entries.pop("items"))
            collection = cls(items=items, **entries)
        except FileNotFoundError:
            raise FileNotFoundError(f"There is no collection's file at {path}.") from None
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path} does not describe a collection ({reason}): it needs title, namespace and "
                "items, each with type and id."
            ) from error
        collection.check(path)
        return collection

    def check(self, path: Path) -> None:
        """Raise ValueError, naming the file, for what the Hub would refuse."""
        unknown = [item for item in self.items if item.type not in ITEM_TYPES]
        if unknown:
            raise ValueError(
                f"{path}: {unknown[0].id} is a {unknown[0].type!r}: choose from "
                f"{', '.join(ITEM_TYPES)}."
            )
        if len(self.description) > MAX_DESCRIPTION:
            raise ValueError(
                f"{path}: the description has {len(self.description)} characters, and the Hub "
                f"takes {MAX_DESCRIPTION}."
            )


def publish_collection(collection: Collection, private: bool = False) -> str:
    """Create a collection, or add the items that an existing one lacks; return its address.

    Items that others added stay. Raises ValueError where an item does not exist or the caller may
    not write, ConnectionError where the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with plain_errors(f"{collection.namespace}/{collection.title}", None, "write to"):
        existing = api.create_collection(
            collection.title,
            namespace=collection.namespace,
            description=collection.description or None,
            private=private,
            exists_ok=True,
        )
    for item in collection.items:
        options: dict[str, Any] = {"item_type": item.type, "note": item.note, "exists_ok": True}
        with plain_errors(item.id, None):
            api.add_collection_item(existing.slug, item.id, **options)
    return existing.url
