"""Search by wanted and unwanted examples, and classification from a few labels."""

from __future__ import annotations

import csv
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest

from earthvlm import OlmoEarthVLMBridge, SceneIndex
from earthvlm.cli import main
from earthvlm.search.relevance import combine_examples

DIM = 384


def cluster(*centres: int, count: int = 40, seed: int = 0) -> np.ndarray:
    """Unit vectors around some unit vectors, all of which share a large part, as scenes do."""
    numbers = np.random.default_rng([seed, *centres])
    vectors = 0.1 * numbers.normal(size=(count, DIM)) / DIM**0.5
    vectors[:, centres] += 0.15
    vectors[:, 0] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [2, 5])
def test_examples_separate_what_words_cannot(count):
    wanted, unwanted = cluster(1), cluster(2)
    for background in (np.concatenate([wanted, unwanted]), wanted[:0]):
        vector = combine_examples(wanted[:count], unwanted[:count], partial(np.copy, background))
        assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1)
        scores = np.concatenate([wanted[count:], unwanted[count:]]) @ vector
        assert (scores[: 40 - count].min() > scores[40 - count :]).mean() > 0.9


def test_what_wanted_and_unwanted_share_is_still_asked_for():
    """Marks on the results of a search: all have what was searched for, which others lack."""
    lakes_by_forest, lakes, forests = cluster(1, 2), cluster(1), cluster(2)
    others = np.concatenate([cluster(centre) for centre in range(3, 9)])
    everything = np.concatenate([lakes_by_forest, lakes, forests, others])
    vector = combine_examples(lakes_by_forest[:5], lakes[:5], lambda: everything)
    assert set(np.argsort(-(everything @ vector))[:40]) == set(range(40))


def test_one_example_is_its_own_query():
    example = cluster(1, count=1)
    vector = combine_examples(example, example[:0], lambda: cluster(2))
    np.testing.assert_allclose(vector, example[0], atol=1e-6)
    vector = combine_examples(cluster(1), example[:0], lambda: example[:0])
    np.testing.assert_allclose(vector @ example[0], 1, atol=0.05)


def test_unwanted_examples_move_a_search():
    index = SceneIndex.from_pretrained("bundled")
    first = index.search("open water", k=8)
    unlike = [first[0], first[1]]
    moved = index.search("open water", k=8, unlike=unlike)
    names = [result.image_id for result in moved]
    assert first[0].image_id not in names and first[1].image_id not in names
    liked = index.search([first[2]], k=8, unlike=unlike)
    assert [r.image_id for r in liked] != [r.image_id for r in index.search([first[2]], k=8)]
    with pytest.raises(ValueError, match="write a minus before it: river -city"):
        index.search("water", unlike=["city"])


def test_a_lake_is_found_by_its_water_and_not_by_its_denial():
    found = SceneIndex.from_pretrained("bundled").search("a lake beside forest", k=5)
    assert all("no water" not in result.caption for result in found)
    assert sum("ater" in result.caption for result in found) >= 4


def test_names_of_no_folder_and_no_repository_are_refused():
    for load in (SceneIndex.from_pretrained, OlmoEarthVLMBridge.from_pretrained):
        with pytest.raises(FileNotFoundError, match="There is no folder my_indx: check its path"):
            load("my_indx")


def test_nothing_is_written_where_nothing_was_found(tmp_path, capsys):
    path = tmp_path / "found.geojson"
    assert main(["search", "water", "--bbox", "100", "10", "110", "20", "--output", str(path)]) == 0
    assert f"No scene was found, so {path} was not written." in capsys.readouterr().err
    assert not path.exists()


def test_the_command_takes_several_examples(capsys):
    index = SceneIndex.from_pretrained("bundled")
    a, b, c = (result.image_id for result in index.browse(k=3))
    assert main(["search", "--like", a, "--like", b, "--unlike", c, "--top_k", "4"]) == 0
    found = capsys.readouterr().out
    expected = index.search([index.get(a), index.get(b)], k=4, unlike=[index.get(c)])
    assert all(result.image_id in found for result in expected)
    assert main(["search", "--unlike", c]) == 2
    assert "Search by words or by --like" in capsys.readouterr().err


def test_classes_are_written_as_a_table(tmp_path, capsys):
    index = SceneIndex.from_pretrained("bundled")
    water = index.search("open water", k=6)
    forest = index.search("dense forest", k=6)
    labels = {r.image_id: "water" for r in water} | {r.image_id: "forest" for r in forest}
    found = index.classify(labels)
    assert found.table.num_rows == len(index) and found.accuracy > found.majority
    assert set(found.table["label"].to_pylist()) == {"water", "forest"}
    assert found.table["given"].null_count == len(index) - len(labels)
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image_id", "label"), *labels.items()])
    assert main(["classify", str(path), "--output", str(tmp_path / "classes.parquet")]) == 0
    assert f"Cross-validated accuracy {found.accuracy:.2f}" in capsys.readouterr().err
    assert pq.read_table(tmp_path / "classes.parquet").equals(found.table)
    assert main(["classify", str(path), "--output", str(tmp_path / "classes.csv")]) == 0
    assert (tmp_path / "classes.csv").read_text().count("\n") == len(index) + 1
    given = path.read_bytes()
    assert main(["classify", str(path), "--output", str(path)]) == 2
    assert "would overwrite" in capsys.readouterr().err and path.read_bytes() == given


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,label\n", "needs a first line with the columns"),
        ("image_id,label\nno_such_tile,a\n", "no_such_tile"),
        ("image_id,label\n,a\n", "line 2 lacks an image_id or a label"),
        ("image_id,label\na,b\na,c\n", "line 3 gives a a second label"),
    ],
)
def test_unusable_labels_are_named(text, expected, tmp_path, capsys):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    assert main(["classify", str(path), "--output", str(tmp_path / "out.csv")]) == 2
    assert expected in capsys.readouterr().err


def test_too_few_labels_are_refused():
    index = SceneIndex.from_pretrained("bundled")
    names = [result.image_id for result in index.browse(k=4)]
    with pytest.raises(ValueError, match="at least two labels with two scenes each; too few are b"):
        index.classify(dict(zip(names, "aaab", strict=True)))
