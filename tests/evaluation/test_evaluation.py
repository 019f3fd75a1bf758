"""Evaluation: measures that are what they are called, and runs that go on where they broke off."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate import PartialState

from earthvlm.cli import main
from earthvlm.data.chatearthnet import ChatEarthNet
from earthvlm.evaluation import evaluation
from earthvlm.evaluation.evaluation import Record, Records, evaluate
from earthvlm.metrics import retrieval
from earthvlm.metrics.captioning import score_captions
from earthvlm.metrics.land_cover import captioned_land_cover
from earthvlm.metrics.questions import (
    score_mentions,
    score_mentions_precision,
    score_mentions_recall,
    score_water,
)
from earthvlm.metrics.results import score_losses
from earthvlm.metrics.retrieval import pair_ranks, score_retrieval
from tests.support.generated_chatearthnet import write_generated_chatearthnet

ROOT = Path(__file__).parents[2]


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


def test_descriptions_score_best_that_say_what_is_true():
    truth = [
        ["Tree cover covers about 60 percent of the scene.", "A forest beside a lake."],
        ["Water covers nearly all of the scene.", "The open sea and nothing else."],
        ["Built-up land covers about 45 percent of the scene.", "A town beside some fields."],
    ]
    right = [sentences[0] for sentences in truth]
    said = {"scene": right, "shuffled": right[1:] + right[:1], "no_image": ["A scene."] * 3}
    figures = {f.name: f for f in score_captions(said, truth)}
    assert list(figures) == ["BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
    for figure in figures.values():
        assert figure.value > max(figure.shuffled, figure.no_image) >= 0
        assert figure.low <= figure.value + 1e-9 and figure.value <= figure.high + 1e-9
    assert figures["BLEU-4"].value == pytest.approx(1) == figures["ROUGE-L"].value
    assert figures["METEOR"].value == pytest.approx(1, abs=0.01)


def test_perplexity_counts_every_token_alike():
    tokens = np.array([1, 3])
    losses = {"scene": np.log([8.0, 1.0]), "shuffled": np.log([8.0, 8.0]), "no_image": np.zeros(2)}
    loss, perplexity = score_losses(losses, tokens)
    assert loss.value == pytest.approx(np.log(8) / 4)
    assert perplexity.value == pytest.approx(8 ** (1 / 4))
    assert perplexity.shuffled == pytest.approx(8 ** (2 / 4)) and perplexity.no_image == 1


def test_a_tie_counts_against_the_scene(monkeypatch):
    similarity = np.array([[0.9, 0.1, 0.9], [0.2, 0.8, 0.1], [0.5, 0.5, 0.5]])
    monkeypatch.setattr(retrieval, "SENTENCES_AT_ONCE", 2)
    ranks = pair_ranks(similarity, np.eye(3))
    assert ranks.tolist() == [2, 1, 3]
    figures = {f.name.split(", ")[1]: f for f in score_retrieval(ranks)}
    assert figures["recall@1"].value == pytest.approx(1 / 3)
    assert figures["median rank"].value == 2 and figures["median rank"].shuffled == 2


@pytest.fixture
def short_answers(monkeypatch):
    """A model of random weights would go on to the longest answer each time."""
    for name in ("QUESTIONS", "DESCRIPTION"):
        tasks = getattr(evaluation, name)
        short = (
            replace(tasks, max_length=8)
            if name == "DESCRIPTION"
            else tuple(replace(task, max_length=8) for task in tasks)
        )
        monkeypatch.setattr(evaluation, name, short)


def test_figures_stand_beside_those_of_seeing_less(data, tiny_bridge, short_answers):
    figures, rows = evaluate(tiny_bridge, ChatEarthNet(data, "val"), batch_size=4)
    by_name = {f.name: f for f in figures}
    assert len(by_name) == len(figures) == 16
    assert {f.tiles for f in figures} == {6}
    for name in ("loss a token", "perplexity"):
        assert by_name[name].low <= by_name[name].value <= by_name[name].high
        assert by_name[name].shuffled != by_name[name].value != by_name[name].no_image
    assert [row["image"] for row in rows] == [t.name for t in ChatEarthNet(data, "val")]
    assert rows[0].keys() == {
        "image",
        "reference",
        "dominant land cover",
        "is there water",
        "what fills a quarter",
        "description",
    }


def test_the_loss_is_that_of_training(data, tiny_bridge):
    scene, _ = ChatEarthNet(data, "val")[0]
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A lake."}]
    (total,), (tokens,) = tiny_bridge.answer_losses([scene], [talk])
    batch = tiny_bridge.collate([tiny_bridge.prepare(scene)], [tiny_bridge.language.encode(talk)])
    output = tiny_bridge(batch)
    assert tokens == output.answer_tokens
    assert total / tokens == pytest.approx(output.loss.item(), rel=1e-5)
    (unseen,), _ = tiny_bridge.answer_losses(None, [talk])
    assert unseen != pytest.approx(total, rel=1e-5)


def test_captions_alone_are_enough_to_describe_and_search(
    captions_alone, tiny_bridge, short_answers
):
    figures, rows = evaluate(tiny_bridge, ChatEarthNet(captions_alone, "val"))
    names = [f.name for f in figures]
    assert names[:3] == [f"description, land-cover {n}" for n in ("precision", "recall", "F1")]
    assert names[3:9] == ["BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "loss a token", "perplexity"]
    assert rows[0].keys() == {"image", "reference", "description"}
    assert rows[0]["reference"] in ChatEarthNet(captions_alone, "val").tiles[0].captions


def test_land_cover_is_compared_with_what_captions_name():
    captions = ("Farmland surrounds a small lake.", "Crops and grasslands; no developed areas.")
    said = "Fields beside a forest, and some water. There is no snow."
    named = {"crop", "water", "grass"}
    assert set().union(*map(captioned_land_cover, captions)) == named
    assert captioned_land_cover(said) == {"crop", "tree", "water"}
    assert score_mentions_precision(said, captions, "") == pytest.approx(2 / 3)
    assert score_mentions_recall(said, captions, "") == pytest.approx(2 / 3)
    assert score_mentions(said, captions, "") == pytest.approx(2 / 3)
    assert score_mentions("Nothing.", captions, "") == 0 == score_mentions(said, ("A scene.",), "")
    assert score_mentions("Nothing.", ("A scene.",), "") == 1


def test_other_captions_are_another_run(captions_alone, tiny_bridge, monkeypatch):
    tiles, runs = ChatEarthNet(captions_alone, "val"), []

    def stop(folder: None, run: dict, state: PartialState) -> None:
        runs.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "Records", stop)
    for captions in (("One.",), ("Another.",)):
        tiles.tiles = [replace(tile, captions=captions) for tile in tiles]
        with pytest.raises(KeyboardInterrupt):
            evaluate(tiny_bridge, tiles)
    assert runs[0] != runs[1]


def test_records_outlive_a_process_and_not_another_run(tmp_path):
    state = PartialState(cpu=True)
    record = Record(3, {"description": "Water."}, {"scene": 1.0}, 2, [0.5])
    Records(tmp_path / "parts", {"bridge": "a"}, state).add([record])
    with open(tmp_path / "parts" / "0.jsonl", "a") as file:
        file.write('\n{"index": 4, "ans')  # killed while it wrote
    again = Records(tmp_path / "parts", {"bridge": "a"}, state)
    assert again.done == {3} and again.collect() == [record]
    again.add([replace(record, index=4)])
    assert [r.index for r in again.collect()] == [3, 4]
    assert Records(tmp_path / "parts", {"bridge": "b"}, state).done == set()


def test_what_is_done_is_not_done_again(data, tiny_bridge, tmp_path, monkeypatch, short_answers):
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
        evaluate(tiny_bridge, tiles, batch_size=2, folder=tmp_path / "parts")
    assert evaluate(tiny_bridge, tiles, batch_size=2, folder=tmp_path / "parts") == whole
    assert sum(scenes is not None for scenes in calls) == 6 + 2 * 4
    assert not (tmp_path / "parts").exists()


@pytest.mark.slow
@pytest.mark.end_to_end
def test_two_processes_find_what_one_finds(data, tiny_bridge, tmp_path, capsys):
    tiny_bridge.save_pretrained(tmp_path / "bridge")
    options = ["evaluate", f"--data_dir={data}", f"--model_path={tmp_path / 'bridge'}"]
    options += ["--device=cpu", "--batch_size=1"]
    assert main([*options, f"--output={tmp_path / 'one.json'}"]) == 0
    table = capsys.readouterr().out
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    launch += ["--dynamo_backend=no", "-m", "earthvlm"]
    done = subprocess.run(
        [*launch, *options, f"--output={tmp_path / 'two.json'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(table)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("count", range(2, 14))
def test_the_baseline_never_shows_a_tile_its_own_scene(count):
    others = evaluation._exchange(count, seed=3)
    assert (others != np.arange(count)).all()


def test_a_run_file_that_was_half_written_starts_the_run_again(tmp_path):
    run = {"bridge": "abc", "seed": 0}
    Records(tmp_path / "run", run, PartialState(cpu=True))
    path = tmp_path / "run" / evaluation.RUN_FILE
    path.write_text(path.read_text()[:9])
    assert Records(tmp_path / "run", run, PartialState(cpu=True)).done == set()
    assert json.loads(path.read_text()) == run


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("Yes.", True),
        ("yes, a lake", True),
        ("No.", False),
        ("**No**, none", False),
        ("North of the road lies a lake.", None),
        ("Nothing but water.", None),
        ("Not sure.", None),
        ("Yesterday", None),
    ],
)
def test_water_is_denied_by_no_alone(answer, says):
    for there in (True, False):
        labels = SimpleNamespace(shares={"water": float(there)})
        assert score_water(answer, labels, "") == float(says is there)
