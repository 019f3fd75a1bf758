"""A collection on the Hub from its file, by the Hub's real client."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from earthvlm.cli import main
from earthvlm.publishing.collection import Collection

FILE = Path(__file__).parents[2] / "hub" / "collection.yaml"


@pytest.fixture
def collection(hub, tmp_path) -> Path:
    """The project's own file with an owner's names, whose repositories are on the Hub."""
    for name in (
        "owner/earthvlm",
        "datasets/owner/chatearthnet-embeddings",
        "spaces/owner/earthvlm",
    ):
        hub.repository(name).commit({})
    path = tmp_path / "collection.yaml"
    path.write_text(FILE.read_text("utf-8").replace("OWNER", "owner"), "utf-8")
    return path


def test_collection_is_made_once_and_extended(hub, collection, capsys):
    assert main(["publish-collection", str(collection)]) == 0
    assert capsys.readouterr().out == f"{hub.url}/collections/owner/earthvlm-0123\n"
    (made,) = hub.collections.values()
    assert [item["type"] for item in made["items"]] == ["model", "dataset", "space"]
    assert made["items"][2]["note"] == {"text": "the app"} and not made["private"]
    assert made["description"] == "Chat with Sentinel-2 scenes and search among them"
    hub.repository("owner/second").commit({})
    entries = yaml.safe_load(collection.read_text("utf-8"))
    entries["items"].append({"type": "model", "id": "owner/second"})
    collection.write_text(yaml.safe_dump(entries), "utf-8")
    assert main(["publish-collection", str(collection)]) == 0
    assert [item["id"] for item in made["items"]][-1] == "owner/second" and len(made["items"]) == 4


def test_missing_repository_is_one_sentence(hub, collection, capsys):
    del hub.repositories["spaces/owner/earthvlm"]
    assert main(["publish-collection", str(collection)]) == 2
    shown = capsys.readouterr().err
    assert "owner/earthvlm" in shown and shown.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: a", "does not describe a collection"),
        ("- a", "does not describe a collection"),
        ("title: [", "does not describe a collection"),
        ("{title: a, namespace: b, items: [{type: film, id: c}]}", "c is a 'film'"),
        ("{title: a, namespace: b, colour: red, items: []}", "colour"),
        (f"{{title: a, namespace: b, items: [], description: {'x' * 151}}}", "151 characters"),
    ],
)
def test_other_files_are_refused(text, words, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        Collection.read(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no collection's file at .*a\.yaml"):
        Collection.read(tmp_path / "a.yaml")
