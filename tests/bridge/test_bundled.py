"""The bundled bridge on real scenes: its answers and embeddings depend on the scene."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.embedding import embed_by_package
from earthvlm import Scene, SceneIndex
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.data.drawn.phenomena import draw_burnt, draw_clouds, draw_desert
from earthvlm.data.pixel_labels import ANY, PixelLabels
from earthvlm.data.questions.scene_sentences import describe
from earthvlm.evaluation.evaluation import QUESTIONS
from earthvlm.metrics.questions import score_dominant, score_water
from earthvlm.metrics.retrieval import pair_ranks, score_retrieval
from earthvlm.models.text_encoder import embed_sentences
from earthvlm.scenes.bands import BANDS, TRUE_COLOUR_WHITE, VISIBLE_BANDS

pytestmark = pytest.mark.slow
TILES = 48
QUESTIONED = 12  # of them: each answer takes about a second


@pytest.fixture(scope="module")
def tiles(practice_data):
    """Validation tiles of all kinds, with their labels."""
    tiles = ChatEarthNet(practice_data / "s2_practice", "val")
    chosen = np.random.default_rng(0).choice(len(tiles), TILES, replace=False)
    scenes, known = zip(*(tiles[int(index)] for index in chosen), strict=True)
    return list(scenes), [tile.labels for tile in known]


@pytest.mark.filterwarnings("ignore:Up to .* bands were:UserWarning")
def test_embeddings_match_the_package_in_float32(bundled_bridge, tiles):
    """In batches, and in bfloat16 where the CPU multiplies it."""
    scenes = tiles[0][:16]
    directly = np.concatenate([embed_by_package(bundled_bridge, scene) for scene in scenes])
    np.testing.assert_allclose(bundled_bridge.embed(scenes), directly, atol=1e-3)


def accuracy(score, answers, labels) -> float:
    return float(np.mean([score(a, f, "") for a, f in zip(answers, labels, strict=True)]))


@pytest.mark.one_setting
@pytest.mark.parametrize(
    ("task", "score", "least"),
    [(QUESTIONS[0], score_dominant, 0.7), (QUESTIONS[1], score_water, 0.8)],
)
def test_answers_depend_on_the_scene(bundled_bridge, tiles, task, score, least):
    scenes, labels = (part[:QUESTIONED] for part in tiles)
    answers = bundled_bridge.generate(scenes, task.question, max_length=task.max_length)
    shuffled = accuracy(score, answers[1:] + answers[:1], labels)
    correct = accuracy(score, answers, labels)
    assert correct > least and correct > shuffled + 0.2


def test_retrieval_beats_chance(bundled_bridge, tiles):
    scenes, labels = tiles
    sentences = embed_sentences([describe(f) for f in labels])
    ranks = pair_ranks(sentences, bundled_bridge.embed(scenes))
    at_ten = next(f for f in score_retrieval(ranks) if "@10" in f.name)
    assert at_ten.low > at_ten.shuffled_image


@pytest.mark.parametrize(
    ("lake", "bands"),
    [
        ("beetzsee_r2_c09", BANDS),
        ("beetzsee_r2_c09", VISIBLE_BANDS),  # grey in a photo
        ("finland_2017-09-24_69_24", BANDS),  # as dark as forest
    ],
)
def test_lakes_are_recognized(bundled_bridge, lake, bands):
    scene = Scene.open(SceneIndex.from_pretrained("bundled").get(lake).scene_file)
    shown = Scene.from_array(scene.reflectance[..., [BANDS.index(band) for band in bands]], bands)
    assert bundled_bridge.generate(shown, "Is there water?").startswith("Yes")


def test_text_and_scene_search_find_bundled_scenes(bundled_bridge):
    index = SceneIndex.from_pretrained("bundled")
    best = index.search("a lake", k=3)
    assert len(best) == 3 and all(r.scene_similarity is not None for r in best)
    scene = Scene.open(best[0].scene_file)
    assert index.search(scene, k=1, bridge=bundled_bridge)[0].image_id == best[0].image_id


@pytest.fixture(scope="module")
def austria():
    scene = SceneIndex.from_pretrained("bundled").get("austria_2017-06-13_87_48").open_scene()
    return scene, PixelLabels.of_sets(np.full((scene.height, scene.width), ANY, np.uint16))


def test_few_houses_in_a_burnt_desert(bundled_bridge, austria):
    """The map showed a twelfth of built-up land along burnt ground before houses were weighed."""
    scene, labels = austria
    rng = np.random.default_rng(1)
    pixels, _ = draw_burnt(*draw_desert(scene.reflectance, labels, rng), rng)
    drawn = Scene(np.maximum(pixels, 0).astype(np.float32))
    assert bundled_bridge.map_land_cover(drawn).shares["built-up land"] < 0.06


def test_a_scene_under_cloud_is_not_described(bundled_bridge, practice_data):
    """The little that is seen of the ground is no part of the answers."""
    scene = Scene.open(practice_data / "scenes" / "boadella_2020-01-18_L2A.tif")
    for question, hidden in {
        "Describe this scene.": "Clouds hide almost all of the scene",
        "Which land cover dominates?": "Clouds hide the scene",
        "What is in the top left?": "Clouds hide the top left",
    }.items():
        assert bundled_bridge.generate(scene, question).startswith(hidden)


def test_cloud_in_a_photo_is_no_snow(bundled_bridge, austria):
    scene, labels = austria
    pixels, _ = draw_clouds(scene.reflectance, labels, np.random.default_rng(2))
    unit = np.clip(pixels / TRUE_COLOUR_WHITE, 0, 1)
    photo = (np.rint(unit * 255) / 255 * TRUE_COLOUR_WHITE).astype(np.float32)
    visible = [photo[..., BANDS.index(band)] for band in VISIBLE_BANDS]
    found = bundled_bridge.map_land_cover(Scene.from_array(np.stack(visible, 2), VISIBLE_BANDS))
    assert found.shows("cloud") and not found.shows("snow or ice")
