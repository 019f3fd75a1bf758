"""Evaluation of a bridge: metrics with both baselines, and interrupted runs that continue."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelerate import PartialState

from earthvlm.cli import main
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.evaluation import evaluation
from earthvlm.evaluation.evaluation import TileRecord, evaluate
from earthvlm.evaluation.records import RUN_FILE, Records
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.training_runs import run_two_processes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=1, val=6)
    return folder


@pytest.fixture
def captions_alone(data: Path, tmp_path: Path) -> Path:
    for folder in data.iterdir():
        if folder.name != "labels.json":
            (tmp_path / folder.name).symlink_to(folder)
    return tmp_path


@pytest.fixture
def short_answers(monkeypatch):
    """Short answers: a model of random weights never ends one by itself."""
    for name in ("QUESTIONS", "DESCRIPTION"):
        tasks = getattr(evaluation, name)
        short = (
            replace(tasks, max_length=8)
            if name == "DESCRIPTION"
            else tuple(replace(task, max_length=8) for task in tasks)
        )
        monkeypatch.setattr(evaluation, name, short)


@pytest.mark.slow
def test_metrics_come_with_both_baselines(data, tiny_bridge, short_answers):
    results, rows = evaluate(tiny_bridge, ChatEarthNet(data, "val"), batch_size=4)
    by_name = {f.name: f for f in results}
    assert len(by_name) == len(results) == 16
    assert {f.tiles for f in results} == {6}
    for name in ("loss per token", "perplexity"):
        assert by_name[name].low <= by_name[name].value <= by_name[name].high
        assert by_name[name].shuffled_image != by_name[name].value != by_name[name].no_image
    assert [row["image"] for row in rows] == [t.name for t in ChatEarthNet(data, "val")]
    assert rows[0].keys() == {
        "image",
        "reference",
        "dominant land cover",
        "is there water",
        "what fills a quarter",
        "description",
    }


def test_evaluation_loss_equals_training_loss(data, tiny_bridge):
    scene, _ = ChatEarthNet(data, "val")[0]
    conversation = [
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "A lake."},
    ]
    (total,), (tokens,) = tiny_bridge.answer_losses([scene], [conversation])
    batch = tiny_bridge.collate(
        [tiny_bridge.prepare(scene)], [tiny_bridge.language.encode(conversation)]
    )
    output = tiny_bridge(batch)
    assert tokens == output.answer_tokens
    assert total / tokens == pytest.approx(output.loss.item(), rel=1e-5)
    (no_image,), _ = tiny_bridge.answer_losses(None, [conversation])
    assert no_image != pytest.approx(total, rel=1e-5)


def test_unlabelled_tiles_are_described_and_retrieved(captions_alone, tiny_bridge, short_answers):
    results, rows = evaluate(tiny_bridge, ChatEarthNet(captions_alone, "val"))
    names = [f.name for f in results]
    assert names[:3] == [f"description, land-cover {n}" for n in ("precision", "recall", "F1")]
    assert names[3:9] == ["BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "loss per token", "perplexity"]
    assert rows[0].keys() == {"image", "reference", "description"}
    assert rows[0]["reference"] in ChatEarthNet(captions_alone, "val").tiles[0].captions


def test_changed_captions_start_a_new_run(captions_alone, tiny_bridge, monkeypatch):
    tiles, runs = ChatEarthNet(captions_alone, "val"), []

    def stop(folder: None, run: dict, state: PartialState, kind: type) -> None:
        runs.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "Records", stop)
    for captions in (("One.",), ("Another.",)):
        tiles.tiles = [replace(tile, captions=captions) for tile in tiles]
        with pytest.raises(KeyboardInterrupt):
            evaluate(tiny_bridge, tiles)
    assert runs[0] != runs[1]


def test_records_survive_a_stop_and_another_run(tmp_path):
    state = PartialState(cpu=True)
    record = TileRecord(3, {"description": "Water."}, {"scene": 1.0}, 2, [0.5])
    Records(tmp_path / "parts", {"bridge": "a"}, state, TileRecord).add([record])
    with open(tmp_path / "parts" / "0.jsonl", "a") as file:
        file.write('\n{"index": 4, "ans')  # killed while it wrote
    again = Records(tmp_path / "parts", {"bridge": "a"}, state, TileRecord)
    assert again.done == {3} and again.collect() == [record]
    again.add([replace(record, index=4)])
    assert [r.index for r in again.collect()] == [3, 4]
    with pytest.raises(ValueError, match="parts holds an unfinished evaluation of another bridge"):
        Records(tmp_path / "parts", {"bridge": "b"}, state, TileRecord)
    assert Records(tmp_path / "parts", {"bridge": "a"}, state, TileRecord).done == {3, 4}


@pytest.mark.slow
def test_an_interrupted_evaluation_continues(
    data, tiny_bridge, tmp_path, monkeypatch, short_answers
):
    tiles = ChatEarthNet(data, "val")
    whole = evaluate(tiny_bridge, tiles, batch_size=2)
    generate, calls = type(tiny_bridge).generate, []

    def counted(self, scenes, *arguments, **options):
        calls.append(scenes)
        if len(calls) == 6:  # in the second batch
            raise KeyboardInterrupt
        return generate(self, scenes, *arguments, **options)

    monkeypatch.setattr(type(tiny_bridge), "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny_bridge, tiles, batch_size=2, records_folder=tmp_path / "parts")
    assert evaluate(tiny_bridge, tiles, batch_size=2, records_folder=tmp_path / "parts") == whole
    assert sum(scenes is not None for scenes in calls) == 6 + 2 * 4
    assert not (tmp_path / "parts").exists()


@pytest.mark.slow
@pytest.mark.end_to_end
def test_two_processes_give_the_results_of_one(data, tiny_bridge, tmp_path, capsys):
    tiny_bridge.save_pretrained(tmp_path / "bridge")
    options = ["evaluate", f"--data_dir={data}", f"--model_path={tmp_path / 'bridge'}"]
    options += ["--device=cpu", "--batch_size=1"]
    assert main([*options, f"--output={tmp_path / 'one.json'}"]) == 0
    table = capsys.readouterr().out
    command = ["-m", "earthvlm", *options, f"--output={tmp_path / 'two.json'}"]
    printed = run_two_processes("ddp", command, tmp_path / "log", "--mixed_precision=no")
    assert printed.endswith(table)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one.pop("date") <= two.pop("date")
    assert one == two


@pytest.mark.parametrize("count", range(2, 14))
def test_shuffled_images_are_of_other_tiles(count):
    others = evaluation.shuffle_tiles(count, seed=3)
    assert (others != np.arange(count)).all()


def test_an_incomplete_run_file_starts_a_new_run(tmp_path):
    run = {"bridge": "abc", "seed": 0}
    Records(tmp_path / "run", run, PartialState(cpu=True), TileRecord)
    path = tmp_path / "run" / RUN_FILE
    path.write_text(path.read_text()[:9])
    assert Records(tmp_path / "run", run, PartialState(cpu=True), TileRecord).done == set()
    assert json.loads(path.read_text()) == run
