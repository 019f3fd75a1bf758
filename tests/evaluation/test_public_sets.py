"""Public test sets: generated files of the authors' layouts, read, scored, and refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from earthvlm.cli import main
from earthvlm.cli.training.evaluate import PUBLIC_SET_NAMES
from earthvlm.data.labels import SCENE_NAMES
from earthvlm.data.public_sets import (
    PUBLIC_SETS,
    collect_questions,
    read_bigearthnet_txt,
    read_eurosat,
    read_rsvqa,
)
from earthvlm.data.sources.opening import open_scenes
from earthvlm.evaluation.public_sets import evaluate_public_set
from earthvlm.scenes.bands import BANDS
from tests.conftest import random_scene
from tests.support.made_rasters import write_tiff

PATCH = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_51_83"


def write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)).save(path)


def write_rsvqa(folder: Path) -> None:
    """Three images, one of which is not active, in the layout of Zenodo's files."""
    questions = [
        ("presence", "Is a road present?", "yes"),
        ("comp", "Are there more roads than forests?", "no"),
        ("rural_urban", "Is it a rural or an urban area?", "rural"),
        ("count", "What is the number of roads?", "37"),
        ("count", "How many buildings are there?", "0"),
        ("count", "How many farms are there?", "10"),
        ("count", "How many trees are there?", "1000"),
        ("count", "How many people are there?", "1001"),
    ]
    images = [{"id": n, "active": n < 2, "questions_ids": []} for n in range(3)]
    asked, answers = [], []
    for number, (kind, text, answer) in enumerate(questions * 2):
        image = number // len(questions)
        entry = {"id": number, "img_id": image, "type": kind, "question": text, "active": True}
        asked.append(entry | {"answers_ids": [number]})
        answers.append({"id": number, "question_id": number, "answer": answer, "active": True})
    asked.append({"id": 99, "img_id": 2, "type": "presence", "question": "?", "active": True})
    folder.mkdir()
    for kind, entries in (("images", images), ("questions", asked), ("answers", answers)):
        (folder / f"LR_split_test_{kind}.json").write_text(json.dumps({kind: entries}))
    for number in range(2):
        write_picture(folder / "Images_LR" / f"{number}.tif", number)


def test_rsvqa_answers_counts_in_ranges(tmp_path):
    write_rsvqa(tmp_path / "lr")
    items = read_rsvqa(tmp_path / "lr").items
    assert len(items) == 16 and {item.image for item in items} == {
        str(tmp_path / "lr" / "Images_LR" / f"{n}.tif") for n in range(2)
    }
    counted = [item.answer for item in items[:8] if item.group == "count"]
    ranges = ("between 10 and 100", "0", "between 0 and 10", "between 100 and 1000")
    assert counted == [*ranges, "more than 1000"]
    assert all(item.answer in item.candidates for item in items)


def test_a_public_set_is_scored_with_baselines(tiny_bridge, tmp_path):
    write_rsvqa(tmp_path / "lr")
    results, rows = evaluate_public_set(tiny_bridge, read_rsvqa(tmp_path / "lr"), batch_size=1)
    found = {result.name: result for result in results}
    assert set(found) == {
        *("presence", "comp", "rural_urban", "count"),
        *("overall accuracy", "average accuracy of the groups"),
        *("without counts: overall accuracy", "without counts: average accuracy of the groups"),
    }
    right = [row["scene"] == row["reference"] for row in rows]
    assert found["overall accuracy"].value == pytest.approx(np.mean(right)) and len(rows) == 16
    groups = [found[name].value for name in ("presence", "comp", "rural_urban", "count")]
    assert found["average accuracy of the groups"].value == pytest.approx(np.mean(groups))
    assert found["without counts: average accuracy of the groups"].value == pytest.approx(
        np.mean(groups[:3])
    )
    assert found["without counts: overall accuracy"].tiles == 6
    for row in rows:
        scene = tiny_bridge.score(None, row["question"], ["yes", "no"])
        if row["group"] == "presence":
            assert row["no_image"] == ("yes", "no")[int(scene.argmax())]
    some, _ = evaluate_public_set(tiny_bridge, read_rsvqa(tmp_path / "lr"), limit=1)
    assert some[0].tiles < found["count"].tiles + 1


def test_a_stopped_evaluation_continues(tiny_bridge, tmp_path):
    write_rsvqa(tmp_path / "lr")
    public_set, reports = read_rsvqa(tmp_path / "lr"), []

    def report_and_stop(text: str) -> None:
        reports.append(text)
        if len(reports) == 1:
            raise KeyboardInterrupt

    def evaluate():
        return evaluate_public_set(
            tiny_bridge, public_set, 1, records_folder=tmp_path / "run", report=report_and_stop
        )

    with pytest.raises(KeyboardInterrupt):
        evaluate()
    count = int(reports[0].split()[2])
    assert reports == [f"1 of {count} images"] and count > 1
    assert evaluate() == evaluate_public_set(tiny_bridge, public_set, 1)
    assert reports[1] == f"1 of {count - 1} images" and len(reports) == count
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("form", ["tif", "jpg"])
def test_eurosat_is_classified_by_question_and_embedding(form, tiny_bridge, tmp_path):
    for number, kind in enumerate(SCENE_NAMES):
        for index in (1, 2):
            path = tmp_path / kind / f"{kind}_{index}.{form}"
            write_picture(path, number) if form == "jpg" else write_eurosat(path, number)
    (tmp_path / "eurosat-test.txt").write_text("".join(f"{kind}_1.jpg\n" for kind in SCENE_NAMES))
    public_set = read_eurosat(tmp_path)
    assert len(public_set.items) == 10 and not public_set.notes
    results, rows = evaluate_public_set(tiny_bridge, public_set)
    assert [result.name for result in results] == ["class", "class by text and scene"]
    assert results[1].no_image == pytest.approx(0.1) and results[1].tiles == len(rows) == 10
    (tmp_path / "eurosat-test.txt").unlink()
    assert len(read_eurosat(tmp_path).items) == 20 and read_eurosat(tmp_path).notes


def write_eurosat(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random_scene(32, 32, seed).save(path)


def write_bigearthnet(folder: Path) -> None:
    tile = PATCH.rsplit("_", 2)[0]
    for number, band in enumerate(BANDS):
        values = np.random.default_rng(number).integers(200, 4000, (32, 32, 1)).astype(np.uint16)
        path = folder / "BigEarthNet-S2" / tile / PATCH / f"{PATCH}_{band}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tiff(path, values)
    options = (
        "Which class is there? a) Beaches, dunes, sands, b) Sea (a large one), c) Urban fabric"
    )
    rows = [
        ("binary", "presence", "Is there forest?", "yes", "bench"),
        ("mcq", "area", options, "b", "bench"),
        ("mcq", "count", "Which is largest? A. Forest B. Urban fabric", "Urban fabric", "bench"),
        ("mcq", "area", "Which one?", "sea", "bench"),
        ("captioning", "caption", "Describe it.", "A sea.", "bench"),
        ("binary", "presence", "Is there sea?", "No", "train"),
    ]
    names = ("type", "category", "input", "output", "split")
    table = [dict(zip(names, row, strict=True)) | {"patch_id": PATCH} for row in rows]
    pq.write_table(pa.Table.from_pylist(table), folder / "BigEarthNet.txt.parquet")


def test_bigearthnet_takes_questions_with_options(tiny_bridge, tmp_path):
    write_bigearthnet(tmp_path)
    public_set = read_bigearthnet_txt(tmp_path)
    assert [(item.candidates, item.answer) for item in public_set.items] == [
        (("Yes", "No"), "Yes"),
        (("a", "b", "c"), "b"),
        (("Forest", "Urban fabric"), "Urban fabric"),
    ]
    assert public_set.notes == ("Left out as captions, boxes or the like: 2 items.",)
    results, _ = evaluate_public_set(tiny_bridge, public_set)
    found = {result.name: result.tiles for result in results}
    assert found["binary, presence"] == found["mcq, area"] == found["mcq, count"] == 1
    assert found["mcq: overall accuracy"] == 2 and found["binary: overall accuracy"] == 1
    with pytest.raises(FileNotFoundError, match="has no split 'test': it has bench, train"):
        read_bigearthnet_txt(tmp_path, "test")


def test_own_questions_have_their_answers_as_candidates(tmp_path):
    rows = [("a", "Water?", "Yes."), ("b", "Water?", "No."), ("a", "Why?", "Because.")]
    lines = [
        {"file_name": f"{n}.tif", "question": q, "answer": a, "split": "val"} for n, q, a in rows
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for name in "ab":
        random_scene(16, 16).save(tmp_path / f"{name}.tif")
    found = collect_questions(open_scenes(tmp_path, "val"))
    assert [(item.image, item.candidates) for item in found.items] == [
        ("a.tif", ("Yes.", "No.")),
        ("b.tif", ("Yes.", "No.")),
    ]
    assert found.open("a.tif").width == 16
    assert found.notes == ("Without a few fixed answers, so left out: 1 question.",)


def test_the_command_evaluates_a_public_set(saved, tmp_path, capsys):
    write_rsvqa(tmp_path / "lr")
    command = ["evaluate", "--dataset=rsvqa-lr", f"--data_dir={tmp_path / 'lr'}", "--device=cpu"]
    output = tmp_path / "results.json"
    assert main([*command, f"--model_path={saved}", f"--output={output}"]) == 0
    assert "| overall accuracy |" in capsys.readouterr().out
    result = json.loads(output.read_text())
    assert (result["dataset"], result["split"], len(result["tiles"])) == ("rsvqa-lr", "test", 16)
    assert main([*command, f"--model_path={saved}", f"--output={output}"]) == 0
    assert f"earthvlm: {output} exists and will be replaced." in capsys.readouterr().err
    assert main(["evaluate", "--dataset=eurosat", f"--data_dir={tmp_path}", "--device=cpu"]) == 2
    assert "lacks EuroSAT's folders" in capsys.readouterr().err
    assert set(PUBLIC_SET_NAMES) == set(PUBLIC_SETS)


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_missing_files_are_named(name, tmp_path):
    read, split = PUBLIC_SETS[name]
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        read(tmp_path, split)
