"""The per cent of match: similarities placed in a range of the dataset's own."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from earthvlm.embeddings.dataset import write_embedding_dataset
from earthvlm.search.index import SceneIndex
from earthvlm.search.match import UNRELATED, MatchScale, Range
from earthvlm.search.one_product import ONE_PRODUCT
from earthvlm.search.relevance import combine_examples
from tests.support.made_scenes import PROVENANCE, make_rows


@pytest.fixture
def index(tmp_path) -> SceneIndex:
    write_embedding_dataset(tmp_path, make_rows(40), *PROVENANCE)
    return SceneIndex.from_pretrained(tmp_path)


def test_range_ends_at_none_and_at_all():
    assert [Range(0.2, 0.6).place(value) for value in (0.1, 0.4, 0.9)] == pytest.approx([0, 0.5, 1])
    assert Range(0.5, 0.5).place(0.6) == 1


def test_match_of_an_example_falls_to_none(index):
    assert all(result.match is None for result in index.browse(k=3))
    itself = index.table.vectors("scene")[7]
    matches = [result.match for result in index.search(itself, k=40)]
    assert matches[0] == pytest.approx(1, abs=1e-5) and matches == sorted(matches, reverse=True)
    assert matches[-4:] == [0] * 4 and matches[-6] > 0  # the least similar tenth


def test_searches_by_pictures_take_turns(index):
    """Concurrent products' threads would wait for one another."""
    vectors = index.table.vectors("scene")
    with ThreadPoolExecutor(2) as pool:
        with ONE_PRODUCT:
            waiting: list[Future] = [
                pool.submit(MatchScale(index.table).measure, vectors[7], 1.0),
                pool.submit(combine_examples, vectors[:2], vectors[3:4], lambda: vectors),
            ]
            for each in waiting:
                with pytest.raises(TimeoutError):
                    each.result(0.3)
        ended = [each.result(30) for each in waiting]
    assert ended[0].high == 1.0 and ended[1].shape == (384,)


def test_match_of_words_is_measured_by_own_captions(index, embed_words):
    scenes, captions = (index.table.vectors(space) for space in ("scene", "caption"))
    own = max(float(np.einsum("ij,ij->i", scenes, captions).mean()), UNRELATED + 0.1)
    embed_words(captions[3])
    best = next(r for r in index.search("anything", k=40) if r.image_id == "tile_03")
    similarities = (best.caption_similarity, best.scene_similarity)
    expected = np.mean([np.clip((s - UNRELATED) / (own - UNRELATED), 0, 1) for s in similarities])
    assert best.match == pytest.approx(expected, abs=1e-5)
