"""Samples, their order in an epoch, and their batches."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from earthvlm.bridge.segmentation import Segmentation
from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.data.labels import LAND_COVER, SceneLabels
from earthvlm.data.pixel_labels import PixelLabels, cover_set
from earthvlm.data.questions.question_answering import caption_conversation
from earthvlm.scenes.land_cover import COVERS, CoverMap
from earthvlm.training.batches.mapped_scenes import SceneMapper, label_scene
from earthvlm.training.batches.sampler import EpochSampler, SampleKey, balancing_weights
from earthvlm.training.batches.samples import TrainingSamples
from earthvlm.training.config import TrainingConfig
from earthvlm.training.dataloaders import StageLoaders
from earthvlm.training.losses.training_model import contrastive_loss
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.made_labels import MIXED


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=12, val=2)
    return folder


def test_epoch_has_every_tile_once_in_batches_of_one_layout():
    sampler = EpochSampler(50, batch_size=8, seed=3)
    first = list(sampler)
    assert sorted(key.index for key in first) == list(range(50))
    assert first == list(sampler)
    for start in range(0, 50, 8):
        assert len({key.layout for key in first[start : start + 8]}) == 1
    sampler.epoch = 1
    assert [key.index for key in sampler] != [key.index for key in first]


def test_epoch_resumes_with_another_batch_size():
    lengths = np.random.default_rng(0).integers(10, 900, 50)

    def resume(size: int, used: int = 0, earlier: tuple = ()) -> list[SampleKey]:
        sampler = EpochSampler(50, size, 3, length_of=lambda key: lengths[key.index])
        sampler.used, sampler.earlier = used, earlier
        return list(sampler)

    used = resume(8)[:16]
    used += resume(4, 16, ((16, 8),))[:12]
    rest = resume(8, 28, ((16, 8), (28, 4)))
    assert sorted(key.index for key in used + rest) == list(range(50))
    assert resume(4, 24, ((16, 8),)) == resume(4, 16, ((16, 8),))[8:]
    for start in range(0, len(rest), 8):
        assert len({key.layout for key in rest[start : start + 8]}) == 1


def test_shards_are_drawn_from_a_few_at_a_time():
    shards = np.repeat(np.arange(12), 10)
    sampler = EpochSampler(120, 8, 3, shards=shards.tolist())
    drawn = [key.index for key in sampler]
    assert sorted(drawn) == list(range(120))
    groups = [set(shards[drawn[start : start + 40]]) for start in (0, 40, 80)]
    assert [len(group) for group in groups] == [4, 4, 4] and len(set.union(*groups)) == 12
    assert shards[drawn[:8]].tolist() != sorted(shards[drawn[:8]])  # mixed within a group
    sampler.epoch = 1
    assert set(shards[[key.index for key in sampler][:40]]) != groups[0]


def test_balanced_epochs_draw_rare_land_cover_more_often():
    def labels(cover: int) -> SceneLabels:
        shares = np.zeros((2, 2, len(LAND_COVER)), np.float32)
        shares[..., cover] = 1
        return SceneLabels(shares, np.zeros((2, 2)), np.zeros((2, 2)))

    weights = balancing_weights([labels(1)] * 96 + [labels(3)] * 4)
    assert weights[-1] / weights[0] == pytest.approx(24**0.5)
    drawn = [k.index for k in EpochSampler(100, batch_size=8, seed=3, weights=weights)]
    assert len(drawn) == 100 and max(drawn) < 100
    assert 8 <= sum(index >= 96 for index in drawn) <= 30  # 17 expected, 4 unbalanced


@pytest.mark.slow
def test_batches_by_length_have_little_padding(practice_data, tiny_bridge):
    tiles = ChatEarthNet(practice_data / "s2_practice", "train")
    samples = TrainingSamples(tiles, tiny_bridge, seed=0)
    layouts = {(1, 1, 1): 1.0}

    def padding(sampler: EpochSampler) -> float:
        lengths = np.array([len(samples[key].prompt.ids) for key in list(sampler)[:64]])
        return 1 - lengths.sum() / lengths.reshape(-1, 8).max(1).sum() / 8

    by_length = EpochSampler(len(tiles), 8, 0, layouts, length_of=samples.length_of)
    assert sorted(key.index for key in by_length) == list(range(len(tiles)))
    assert padding(by_length) < 0.15 < padding(EpochSampler(len(tiles), 8, 0, layouts))


def test_long_captions_have_little_padding(tmp_path, tiny_bridge):
    rng = random.Random(0)
    words = "the scene shows crop grass tree water and a developed area towards its left".split()
    captions = [" ".join(rng.choices(words, k=rng.randint(35, 175))) for _ in range(512)]
    entries = [{"image": f"{i}.png", "caption": text} for i, text in enumerate(captions)]
    (tmp_path / "json_files").mkdir()
    path = tmp_path / "json_files" / "ChatEarthNet_caps_35_train.json"
    path.write_text(json.dumps(entries))
    samples = TrainingSamples(ChatEarthNet(tmp_path, "train"), tiny_bridge, seed=0)
    prompts = [samples.encode(caption_conversation(text, rng)) for text in captions]

    def padding(sampler: EpochSampler) -> float:
        lengths = np.array([len(prompts[key.index].ids) for key in sampler]).reshape(-1, 8)
        return 1 - lengths.sum() / lengths.max(1).sum() / 8

    by_length = EpochSampler(512, 8, 0, {None: 1.0}, length_of=samples.length_of)
    assert padding(by_length) < 0.15 < padding(EpochSampler(512, 8, 0, {None: 1.0}))


def test_each_epoch_draws_one_of_several_captions(data, tiny_bridge, tmp_path):
    for folder in data.iterdir():
        if folder.name.startswith("s2_"):
            (tmp_path / folder.name).symlink_to(folder)
    names = [tile.name for tile in ChatEarthNet(data, "train")]
    captions = [f"Caption number {n}." for n in range(4)]
    (tmp_path / "json_files").mkdir()
    path = tmp_path / "json_files" / "ChatEarthNet_caps_4v_train.json"
    path.write_text(json.dumps([{"image_id": name, "caption": captions} for name in names]))
    tiles = ChatEarthNet(tmp_path, "train", captions="4v")
    samples = TrainingSamples(tiles, tiny_bridge, 0)

    def drawn() -> list[str]:
        return [samples[SampleKey(epoch, 0)].sentence for epoch in range(12)]

    assert drawn() == drawn()
    assert len(set(drawn())) > 1 and set(drawn()) <= set(captions)


def test_half_of_the_prompts_hold_the_context(data, tiny_bridge):
    tiles = ChatEarthNet(data, "train")

    def count_contexts() -> int:
        samples, decode = TrainingSamples(tiles, tiny_bridge, 0), tiny_bridge.language.tokenizer
        keys = [SampleKey(epoch, index) for epoch in range(5) for index in range(12)]
        prompts = [decode.decode(samples[key].prompt.ids) for key in keys]
        return sum("\nMeasured: " in prompt for prompt in prompts)

    assert count_contexts() == 0
    tiny_bridge.set_prompts(scene_context=True)
    assert 20 <= count_contexts() <= 40


@pytest.mark.slow
def test_prompts_show_the_map_and_at_times_a_wrong_one(data, tiny_bridge):
    """What a wrong map says, no question is asked about, and answers follow the labels."""
    tiles = ChatEarthNet(data, "train")
    tiny_bridge.set_prompts(scene_context=True)
    tiny_bridge.add_segmentation_head()
    samples = TrainingSamples(tiles, tiny_bridge, 0, mapper=SceneMapper(tiny_bridge))
    decode = tiny_bridge.language.tokenizer.decode
    keys = [SampleKey(epoch, 0) for epoch in range(120)]
    prompts = [decode(samples[key].prompt.ids) for key in keys]
    right = tiny_bridge.write_context(tiles.read(tiles.tiles[0]))
    assert right.splitlines()[2].startswith("Map: ")
    assert 40 <= sum(right in prompt for prompt in prompts) <= 70
    wrong = [prompt for prompt in prompts if "\nMap: " in prompt and right not in prompt]
    assert 2 <= len(wrong) <= 15
    assert not any("The map shows" in prompt for prompt in wrong)


@pytest.mark.slow
def test_answers_can_follow_the_map_alone(data, tiny_bridge):
    """A random head's map differs from the labels, and an answer says so wherever it is asked."""
    tiles = ChatEarthNet(data, "train")
    tiny_bridge.set_prompts(scene_context=True)
    tiny_bridge.add_segmentation_head()
    mapper = SceneMapper(tiny_bridge)
    samples = TrainingSamples(
        tiles, tiny_bridge, 0, mapper=mapper, context_share=1.0, follow_map=True
    )
    decode = tiny_bridge.language.tokenizer.decode
    scenes = [tiles.read(tile) for tile in tiles.tiles]
    mapped = [next(iter(mapper(scene).ground_shares)) for scene in scenes]
    index = next(i for i, tile in enumerate(tiles.tiles) if tile.labels.dominant != mapped[i])
    context, dominant = tiny_bridge.write_context(scenes[index]), mapped[index]
    prompts = [decode(samples[SampleKey(epoch, index)].prompt.ids) for epoch in range(60)]
    assert all(context in prompt for prompt in prompts)
    question = "Which land cover dominates?"
    answers = [text.split(question)[1][:120] for text in prompts if question in text]
    assert answers and all(dominant in answer.lower() for answer in answers)


def test_samples_are_drawn_scenes_with_labels_of_their_map(data, tiny_bridge, tmp_path):
    """The same ones by a worker, which maps them too."""
    tiles, runs = ChatEarthNet(data, "train"), []
    tiny_bridge.set_prompts(scene_context=True)
    tiny_bridge.add_segmentation_head()
    for workers in (0, 1):
        config = TrainingConfig(str(data), str(tmp_path), batch_size=4, num_workers=workers)
        loaders = StageLoaders(tiny_bridge, config, Accelerator(cpu=True), tiles)
        runs.append(list(loaders.bridge(tiny_bridge)))
    for one, other in zip(*runs, strict=True):
        assert one.names == other.names and torch.equal(one.bridge.ids, other.bridge.ids)
    labels = [known for batch in runs[0] for known in batch.labels]
    drawn = [known for known in labels if known.cover_map is not None]
    assert len(labels) == 12 and 1 <= len(drawn) <= 11
    assert all(known.cloud.shape == (6, 6) for known in drawn)
    assert any(known.predicted_map is not None for known in labels)


def test_contexts_of_joined_tiles_have_a_date_and_mostly_a_place(data, tiny_bridge):
    tiny_bridge.set_prompts(scene_context=True)
    samples = TrainingSamples(ChatEarthNet(data, "train"), tiny_bridge, 0)
    decode = tiny_bridge.language.tokenizer.decode
    keys = [SampleKey(epoch, 0, (1, 2, 1)) for epoch in range(60)]
    contexts = [text for key in keys if "Measured" in (text := decode(samples[key].prompt.ids))]
    placed = [text for text in contexts if "Place unknown" not in text]
    assert len(contexts) > 15 and not any("Date unknown" in text for text in contexts)
    assert 0.4 < len(placed) / len(contexts) < 0.95 and all(" km. " in text for text in placed)


def test_answers_follow_a_map_that_is_about_right():
    """And the labels where the map errs."""
    classes = np.full((60, 60), COVERS.index("tree cover"), np.uint8)
    classes[:28, :28] = COVERS.index("water")
    nearly = SceneLabels.from_cover_map(CoverMap(classes))
    assert nearly.agrees_with(MIXED) and MIXED.agrees_with(nearly)
    classes[40:, 40:] = COVERS.index("built-up land")
    assert not SceneLabels.from_cover_map(CoverMap(classes)).agrees_with(MIXED)
    classes[:] = COVERS.index("tree cover")
    assert not SceneLabels.from_cover_map(CoverMap(classes)).agrees_with(MIXED)


def test_labels_keep_to_the_covers_that_a_pixel_can_be():
    """The likeliest of them is the truth; the map says what it would."""
    likely = np.zeros((len(COVERS), 12, 12), np.float32)
    likely[COVERS.index("bare soil")] = 0.6
    likely[COVERS.index("water")] = 0.3
    found = CoverMap(likely.argmax(0).astype(np.uint8))
    known = PixelLabels.of_sets(np.full((12, 12), cover_set(["water", "tree cover"])))
    labels = label_scene(Segmentation(found, likely), known)
    assert labels.dominant == "water"
    assert labels.predicted_map.ground_shares["bare soil"] == 1


def test_batches_do_not_depend_on_the_number_of_workers(data, tiny_bridge, tmp_path):
    tiles, epochs = ChatEarthNet(data, "train"), []
    for workers in (0, 1, 2):
        config = TrainingConfig(str(data), str(tmp_path), batch_size=4, num_workers=workers)
        loaders = StageLoaders(tiny_bridge, config, Accelerator(cpu=True), tiles)
        epochs.append(list(loaders.bridge(tiny_bridge)))
    assert len(epochs[0]) == 3
    for others in epochs[1:]:
        for one, other in zip(epochs[0], others, strict=True):
            assert one.names == other.names and one.sentences == other.sentences
            assert torch.equal(one.bridge.ids, other.bridge.ids)
            for scene, same in zip(one.bridge.scenes, other.bridge.scenes, strict=True):
                assert torch.equal(scene.pixels, same.pixels)


@pytest.mark.slow
def test_search_head_trains_on_its_own_patch_size(data, tiny_bridge, tmp_path, monkeypatch):
    monkeypatch.setattr("earthvlm.training.dataloaders.HEAD_CROP_EPOCHS", 1)
    tiles, resample, grids = ChatEarthNet(data, "train"), tiny_bridge.resample, []
    monkeypatch.setattr(
        tiny_bridge, "resample", lambda tokens: grids[-1].extend(tokens.grids) or resample(tokens)
    )
    config = TrainingConfig(str(data), str(tmp_path), num_workers=0)
    for embedding_patch_size in (4, 8):
        tiny_bridge.set_patch_sizes(4, embedding_patch_size)
        grids.append([])
        StageLoaders(tiny_bridge, config, Accelerator(cpu=True), tiles).head(tiny_bridge)
    fine, coarse = grids
    assert fine and fine == [(2 * rows, 2 * columns) for rows, columns in coarse]


def test_sample_depends_on_its_key_alone(data, tiny_bridge):
    tiles = ChatEarthNet(data, "train")
    keys = list(EpochSampler(len(tiles), 4, seed=0))
    samples = TrainingSamples(tiles, tiny_bridge, seed=0)
    again = TrainingSamples(tiles, tiny_bridge, seed=0)
    backwards = [again[key] for key in keys[::-1]][::-1]
    for one, other in zip([samples[key] for key in keys], backwards, strict=True):
        assert torch.equal(one.scene.pixels, other.scene.pixels)
        assert one.prompt == other.prompt and one.sentence == other.sentence


def test_tiles_without_labels_train_on_their_captions(data, tiny_bridge, tmp_path):
    for folder in data.iterdir():
        if folder.name != "labels.json":
            (tmp_path / folder.name).symlink_to(folder)
    tiles = ChatEarthNet(tmp_path, "train")
    sample = TrainingSamples(tiles, tiny_bridge, 0)[next(iter(EpochSampler(len(tiles), 4, 0)))]
    assert sample.labels is None
    assert any(sample.sentence in tile.captions for tile in tiles)


TALK = ({"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Three."})


def test_conversations_and_captions_are_drawn_alike(data, tiny_bridge):
    tiles = ChatEarthNet(data, "train")
    talking = [
        Tile(tiles.tiles[0].name, ("A lake.",), None, (TALK,)),
        Tile(tiles.tiles[1].name, (), None, (TALK,)),
        Tile(tiles.tiles[2].name, (), tiles.tiles[2].labels, (TALK,)),
    ]
    samples = TrainingSamples(tiles.with_tiles(talking), tiny_bridge, seed=0)
    tokenizer = tiny_bridge.language.tokenizer

    def draw(index: int, layout: tuple | None = None) -> list[tuple[bool, str]]:
        drawn = [samples[SampleKey(epoch, index, layout)] for epoch in range(24)]
        return [("Three." in tokenizer.decode(d.prompt.ids), d.sentence) for d in drawn]

    both = draw(0)
    assert 4 < sum(talked for talked, _ in both) < 20
    assert {sentence for _, sentence in both} == {"A lake."}
    assert set(draw(1)) == {(True, "")}
    unaltered, joined = draw(2), draw(2, (2, 2, 1))
    assert 4 < sum(talked for talked, _ in unaltered) < 20
    assert all(sentence for _, sentence in unaltered)
    assert not any(talked for talked, _ in joined)  # it would be untrue of a joined scene


def test_scenes_without_sentences_are_not_contrasted():
    torch.manual_seed(0)
    scenes, sentences = (F.normalize(torch.randn(4, 384), dim=1) for _ in range(2))
    some = sentences * torch.tensor([1.0, 0, 1, 0])[:, None]
    torch.testing.assert_close(
        contrastive_loss(scenes, some), contrastive_loss(scenes[::2], sentences[::2])
    )
    scenes.requires_grad_()
    contrastive_loss(scenes, torch.zeros(4, 384)).backward()
    assert not scenes.grad.any()
