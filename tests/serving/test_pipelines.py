"""Pipelines that are called as transformers', and embeddings in scikit-learn's pipelines."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import earthvlm
from tests.conftest import random_scene


@pytest.fixture
def files(tmp_path) -> list[str]:
    paths = [tmp_path / f"{number}.tif" for number in range(2)]
    for number, path in enumerate(paths):
        random_scene(seed=number).save(path)
    return [str(path) for path in paths]


def test_questions_are_answered_as_by_the_bridge(tiny_bridge, files):
    pipe = earthvlm.pipeline("image-text-to-text", model=tiny_bridge)
    scenes = [earthvlm.Scene.open(path) for path in files]
    (found,) = pipe(images=files[0], text="Water?", max_new_tokens=6)
    answer = tiny_bridge.generate(scenes[0], "Water?", 6)
    assert found == {"input_text": "Water?", "generated_text": answer}
    several = pipe(images=scenes, text=["Water?", "Forest?"], max_new_tokens=6)
    assert [each["input_text"] for each in several] == ["Water?", "Forest?"]
    with pytest.raises(ValueError, match="A question needs an image"):
        pipe(text="Water?")


def test_chats_hold_their_image(tiny_bridge, files):
    pipe = earthvlm.pipeline(model=tiny_bridge)
    parts = [{"type": "image", "path": files[0]}, {"type": "text", "text": "Water?"}]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    (found,) = pipe(text=chat, max_new_tokens=6)
    alone = tiny_bridge.generate(earthvlm.Scene.open(files[0]), "Water?", 6)
    assert found["generated_text"] == alone
    (whole,) = pipe(text=chat, max_new_tokens=6, return_full_text=True)
    assert whole["generated_text"] == [*chat, {"role": "assistant", "content": alone}]
    with pytest.raises(ValueError, match="about one image; 2 were given"):
        pipe(images=files[1], text=chat)


def test_labels_are_ranked_by_embedding(tiny_bridge, files):
    pipe = earthvlm.pipeline("zero-shot-image-classification", model=tiny_bridge)
    found = pipe(files, candidate_labels=["water", "forest", "a town"])
    assert len(found) == 2 and {each["label"] for each in found[0]} == {"water", "forest", "a town"}
    scores = [each["score"] for each in found[0]]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1)
    alone = pipe(files[0], ["water", "forest", "a town"])
    assert [each["label"] for each in alone] == [each["label"] for each in found[0]]
    assert [each["score"] for each in alone] == pytest.approx(scores, abs=1e-4)


def test_features_are_the_embeddings(tiny_bridge, files):
    pipe = earthvlm.pipeline("image-feature-extraction", model=tiny_bridge)
    expected = tiny_bridge.embed([earthvlm.Scene.open(path) for path in files])
    np.testing.assert_allclose(pipe(files), expected, atol=1e-5)
    np.testing.assert_allclose(pipe(files[0]), expected[0], atol=1e-5)


def test_unknown_tasks_are_refused():
    with pytest.raises(ValueError, match="no task 'text-generation': choose from image-text-to"):
        earthvlm.pipeline("text-generation")


def test_the_embedder_works_in_scikit_learn(tiny_bridge):
    scenes = [random_scene(16, 16, seed=seed) for seed in range(8)]
    embedder = earthvlm.SceneEmbedder(tiny_bridge, batch_size=3)
    found = embedder.fit_transform(scenes)
    np.testing.assert_allclose(found, tiny_bridge.embed(scenes), atol=1e-3)
    assert clone(embedder).model is tiny_bridge
    assert embedder.set_params(batch_size=8).get_params()["batch_size"] == 8
    assert len(embedder.get_feature_names_out()) == found.shape[1]
    labels = [0, 1] * 4
    pipe = make_pipeline(embedder, LogisticRegression())
    assert pipe.fit(scenes, labels).predict(scenes).shape == (8,)
    assert len(cross_val_score(pipe, scenes, labels, cv=2)) == 2
