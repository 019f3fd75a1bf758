"""SceneIndex: exact search by vectors, words and scenes, and an index built from scenes."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from earthvlm.embeddings.dataset import write_embedding_dataset
from earthvlm.embeddings.table import SceneTable
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.scenes.scene import Scene
from earthvlm.search.engines.exact import ExactEngine
from earthvlm.search.index import SceneIndex
from earthvlm.search.rank_fusion import RANK_FUSION_K, fuse_ranks
from tests.support.made_scenes import (
    PROVENANCE,
    TinyBridge,
    get_ids,
    make_rows,
    make_scene,
    make_vectors,
    mix_vectors,
)

# Search


def test_fused_ranks_follow_the_formula():
    scores = fuse_ranks([np.array([0.9, 0.1, 0.5, np.nan]), np.array([0.2, 0.8, 0.8, 0.1])])
    first = 1 / (RANK_FUSION_K + 1)
    second, third, fourth = (1 / (RANK_FUSION_K + rank) for rank in (2, 3, 4))
    # Rows 1 and 2 share the first rank of the second ranking; row 3 is absent from the first.
    np.testing.assert_allclose(scores, [first + third, third + first, second + first, fourth])


def test_a_vector_finds_its_own_scene_exactly(tmp_path):
    rows = make_rows(20)
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    query = make_vectors(1, 9)[0]
    similarity = np.stack([row["scene_embedding"] for row in rows]) @ query
    expected = [rows[row]["image_id"] for row in np.argsort(-similarity)]
    results = index.search(3 * query, k=20)  # a query of any length is the same query
    assert get_ids(results) == expected
    assert results[0].scene_similarity == pytest.approx(similarity.max(), abs=1e-5)
    assert results[0].caption_similarity is None
    assert results[0].score == pytest.approx(1 / 61)
    assert len(index.search(query, k=5)) == 5
    assert len(index.search(query, k=500)) == 20


def test_words_find_scenes_by_caption_and_by_sight(tmp_path, embed_words):
    rows = make_rows(12)
    query = make_vectors(1, 9)[0]
    embed_words(query)
    rows[3]["caption_embedding"] = mix_vectors(query, rows[3]["caption_embedding"], 0.7)
    rows[3]["scene_embedding"] = -query
    rows[5]["scene_embedding"] = mix_vectors(query, rows[5]["scene_embedding"], 0.7)
    rows[5]["caption_embedding"] = -query
    for name, share in (("caption_embedding", 0.6), ("scene_embedding", 0.6)):
        rows[7][name] = mix_vectors(query, rows[7][name], share)
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    results = SceneIndex.from_pretrained(tmp_path).search("a lake", k=3)
    # Second by caption and second by sight beats first in one of the two.
    assert results[0].image_id == "tile_07"
    assert results[0].score > 1 / 61 + 1 / 72
    assert results[0].score == pytest.approx(2 / 62)
    assert results[0].scene_similarity == pytest.approx(
        rows[7]["scene_embedding"] @ query, abs=1e-5
    )
    assert results[0].caption_similarity == pytest.approx(
        rows[7]["caption_embedding"] @ query, abs=1e-5
    )


def test_a_scene_that_nobody_captioned_is_found(tmp_path, embed_words):
    rows = make_rows(6)
    embed_words(rows[2]["scene_embedding"])
    rows[2]["caption"] = rows[2]["caption_embedding"] = None
    rows[4]["scene_embedding"] = None
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    found = {result.image_id: result for result in index.search("a lake", k=6)}
    assert len(found) == 6
    assert found["tile_02"].caption_similarity is None
    assert found["tile_02"].scene_similarity == pytest.approx(1, abs=1e-5)
    assert found["tile_02"].score == pytest.approx(1 / 61)
    assert found["tile_04"].scene_similarity is None
    # A scene query has nothing to compare with a row that has no scene embedding.
    assert "tile_04" not in get_ids(index.search(rows[2]["scene_embedding"], k=6))


def test_splits_are_searched_apart(tmp_path):
    rows = make_rows(9)
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    assert index.splits == ("examples", "tiles")
    query = rows[1]["scene_embedding"]
    assert index.search(query, k=1)[0].image_id == "tile_01"
    examples = index.search(query, split="examples")
    assert sorted(get_ids(examples)) == ["tile_00", "tile_03", "tile_06"]
    assert examples[0].score == pytest.approx(1 / 61)  # ranked among the examples alone
    assert get_ids(index.browse("examples")) == ["tile_00", "tile_03", "tile_06"]
    assert get_ids(index.browse("examples", k=2)) == ["tile_00", "tile_03"]
    for search in (lambda: index.search(query, split="val"), lambda: index.browse("val")):
        with pytest.raises(ValueError, match="no split 'val'; choose one of examples, tiles"):
            search()


def test_ties_are_broken_by_name_whatever_the_order_of_rows(tmp_path):
    rows = make_rows(40)
    for row in rows:
        row["scene_embedding"] = rows[0]["scene_embedding"]
    expected = [row["image_id"] for row in rows]
    order = np.random.default_rng(3).permutation(len(rows))
    write_embedding_dataset(tmp_path, [rows[row] for row in order], *PROVENANCE)
    results = SceneIndex.from_pretrained(tmp_path).search(make_vectors(1, 9)[0], k=40)
    assert get_ids(results) == expected
    assert len({result.score for result in results}) == 1


def test_queries_by_another_model_are_refused_by_name(tmp_path):
    write_embedding_dataset(tmp_path, make_rows(3), "owner/bridge", "abc123", "owner/other", "1.0")
    index = SceneIndex.from_pretrained(tmp_path)
    scene = make_scene("query")
    with pytest.raises(ValueError, match="owner/other at revision 1.0.*all-MiniLM-L6-v2"):
        index.search("a lake")
    with pytest.raises(ValueError, match="needs the bridge .* owner/bridge at revision abc123"):
        index.search(scene)
    bridge = TinyBridge()
    assert len(index.search(scene, bridge=bridge)) == 3
    bridge.revision = "def456"
    with pytest.raises(ValueError, match="at revision abc123, but the bridge given .* def456"):
        index.search(scene, bridge=bridge)


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [
        (" \n ", 3, "the search is empty"),
        ("lake " * 20_000, 3, "99999 characters; at most 2000"),
        (make_vectors(1)[0], 0, "at least 1; 0 was given"),
        (np.zeros(SENTENCE_DIM), 3, "not all 0"),
        (np.full(SENTENCE_DIM, np.nan), 3, "finite values"),
        (np.ones(128), 3, r"shape \(384,\).*shape \(128,\)"),
    ],
)
def test_bad_queries_are_refused(tmp_path, query, k, message):
    write_embedding_dataset(tmp_path, make_rows(3), *PROVENANCE)
    with pytest.raises(ValueError, match=message):
        SceneIndex.from_pretrained(tmp_path).search(query, k=k)


def test_real_words_find_the_caption_that_means_them(tmp_path):
    from earthvlm.models.text_encoder import embed_sentences

    captions = [
        "Open water covers most of the image; trees stand along its shore.",
        "A dense town with streets, houses and factories.",
        "Ploughed fields and meadows with a few farms.",
    ]
    rows = [
        {"image_id": f"tile_{index}", "split": "tiles", "caption": caption}
        | {"caption_embedding": vector}
        for index, (caption, vector) in enumerate(
            zip(captions, embed_sentences(captions), strict=True)
        )
    ]
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    for query, image_id in (
        ("a lake beside forest", "tile_0"),
        ("urban area", "tile_1"),
        ("farmland", "tile_2"),
    ):
        assert index.search(query, k=1)[0].image_id == image_id


# Building


def test_an_index_is_built_from_scenes_and_opens_them_again(tmp_path):
    scenes = [make_scene(name, seed) for seed, name in enumerate(("one", "two", "silent"))]
    done = []
    bridge = TinyBridge()
    index = SceneIndex.build(
        tmp_path,
        scenes,
        bridge,
        bridge_id="owner/bridge",
        splits=["tiles", "examples", "tiles"],
        sources=["A satellite.", None, None],
        batch_size=2,
        report=lambda *counts: done.append(counts),
    )
    assert done == [(2, 3), (3, 3)]
    assert index.provenance.bridge_revision == "abc123"
    for scene in scenes:
        found = index.search(scene, k=1, bridge=bridge)[0]
        assert found.image_id == scene.name
        assert found.scene_similarity == pytest.approx(1, abs=1e-5)
        again = Scene.open(found.scene_file)
        np.testing.assert_allclose(again.reflectance, scene.reflectance, atol=0.51)
    one, two, silent = index.browse()
    assert (one.caption, one.source, two.split) == ("This is one.", "A satellite.", "examples")
    assert silent.caption is None
    assert (one.longitude, one.latitude) == (12.5, 52.4)

    one.scene_file.unlink()
    assert SceneIndex.from_pretrained(tmp_path).browse()[0].scene_file is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["same", "same"], "two scenes are named 'same'"),
        (["../outside"], "cannot be a file name"),
        ([], "at least one scene"),
    ],
)
def test_scenes_that_cannot_be_filed_are_refused_first(tmp_path, names, message):
    scenes = [make_scene(name) for name in names]
    with pytest.raises(ValueError, match=message):
        SceneIndex.build(tmp_path / "new", scenes, TinyBridge(), bridge_id="owner/bridge")
    assert not (tmp_path / "new").exists()


class RefusingEngine:
    """An engine that does not answer in the space "caption", and answers in others."""

    name = "refusing"

    def __init__(self, table: SceneTable, together: threading.Barrier | None = None) -> None:
        self._exact, self._together = ExactEngine(table), together

    def search(self, space, queries, k, where):
        if self._together is not None:  # both searches are under way before either ends
            self._together.wait(20)
        if space == "caption" or where.split == "tiles":
            raise ConnectionError("The engine does not answer")
        return self._exact.search(space, queries, k, where)


def test_a_warning_belongs_to_one_search_among_threads(tmp_path):
    write_embedding_dataset(tmp_path, make_rows(20), *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    index.engine = RefusingEngine(index.table, threading.Barrier(2))
    query = make_vectors(1, 9)[0]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            answered = threads.submit(index.search, query, split="examples")
            refused = threads.submit(index.search, query, split="tiles")
            assert answered.result(20).warning == ""
            warning = "The engine does not answer; the exact engine searched instead."
            assert refused.result(20).warning == warning
            assert {found.split for found in refused.result()} == {"tiles"}


def test_a_later_ranking_does_not_clear_the_warning(tmp_path, embed_words):
    write_embedding_dataset(tmp_path, make_rows(20), *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    embed_words(make_vectors(1, 9)[0])
    expected = get_ids(index.search("a lake"))
    index.engine = RefusingEngine(index.table)
    found = index.search("a lake")  # ranked by caption, where nobody answers, then by scene
    assert found.warning.startswith("The engine does not answer; ")
    assert get_ids(found) == expected
    assert pickle.loads(pickle.dumps(found)).warning == found.warning


def test_a_scene_that_another_index_added_is_not_added_twice(tmp_path):
    bridge = TinyBridge()
    SceneIndex.build(tmp_path, [make_scene("a")], bridge, bridge_id=PROVENANCE[0])
    one, other = (SceneIndex.from_pretrained(tmp_path) for _ in range(2))
    one.add([make_scene("b", 1)], bridge)
    with pytest.raises(ValueError, match="has a scene 'b' already"):
        other.add([make_scene("b", 2)], bridge)
    assert sorted(get_ids(SceneIndex.from_pretrained(tmp_path).browse())) == ["a", "b"]
