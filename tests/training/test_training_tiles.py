"""Data that a run refuses, or reports and leaves out, before it trains."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from accelerate import Accelerator

from earthvlm.cli import main
from earthvlm.data.captioned_scenes import are_labelled
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.training.config import TrainingConfig
from earthvlm.training.training_tiles import open_training_tiles
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.training_runs import TrainingRun, wait_for


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_generated_chatearthnet(tmp_path / "data", train=6, val=3)
    return tmp_path / "data"


def captions(data: Path, split: str = "train") -> Path:
    return data / "json_files" / f"ChatEarthNet_caps_35_{split}.json"


def truncate_image(data: Path, name: str) -> None:
    image = next((data / "s2_rgb_images").rglob(name))
    image.write_bytes(image.read_bytes()[:100])


def opened(data: Path, **options: int) -> tuple[ChatEarthNet, ChatEarthNet]:
    config = TrainingConfig(str(data), str(data / "run"), **options)
    return open_training_tiles(config, Accelerator(cpu=True))


REFUSED = {
    "number for a name": ([{"image_id": 1, "caption": "a lake"}], "entry 1 names the image '1'"),
    "no name": ([{"caption": "a lake"}], "entry 1 names the image 'None'"),
    "path": ([{"image": "s2_rgb_images/a.png", "caption": "a"}], "entry 1 names the image 's2_rgb"),
    "numbers": ([{"image": "a.png", "caption": [1]}], "entry 1 (a.png) has a caption that is neit"),
    "lists in a list": ([{"image": "a.png", "caption": [["a"]]}], "entry 1 (a.png) has a caption"),
    "entry of text": ([{"image": "b.png", "caption": "b"}, "a.png"], "entry 2 is no object"),
    "object": ({"annotations": []}, "holds no list"),
    "half a pair": ([{"image": "a.png", "caption": "\ud800"}], "entry 1 ('a.png') has characters"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_malformed_captions_are_refused_by_entry(form, data, capsys):
    entries, expected = REFUSED[form]
    captions(data).write_text(json.dumps(entries))
    with pytest.raises(ValueError) as refused:
        opened(data)
    assert str(captions(data)) in str(refused.value) and expected in str(refused.value)
    assert main(["validate-data", str(data)]) != 0
    output = capsys.readouterr().err
    assert expected in output and "Traceback" not in output


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_captions_in_other_unicode_encodings(encoding, data):
    text = captions(data).read_text()
    captions(data).write_bytes(text.replace("The scene", "Où").encode(encoding))
    assert opened(data)[0].tiles[0].captions[0].startswith("Où shows")


def test_an_entry_in_another_encoding_is_named(data):
    entries = b'[{"image": "a.png", "caption": "f"}, {"image": "b.png", "caption": "f\xfcr"}]'
    captions(data).write_bytes(entries)
    with pytest.raises(ValueError, match=r"caps_35_train.json: entry 2 \('b.png'\) has characters"):
        opened(data)


@pytest.mark.parametrize("content", [b"{}\n{}", b"", b'[{"image": "\xfc'])
def test_files_that_are_not_json_are_named(content, data):
    captions(data).write_bytes(content)
    with pytest.raises(ValueError, match=r"caps_35_train.json is no caption file"):
        opened(data)


def test_labels_that_cannot_be_read_are_named(data):
    names = [tile.name for tile in ChatEarthNet(data, "train").tiles]
    labels = json.loads((data / "labels.json").read_text())
    del labels[names[1]]["quadrants"]
    (data / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(
        ValueError, match=f"{names[1]} has labels that cannot be read: they lack 'qu"
    ):
        opened(data)
    (data / "labels.json").write_text("[1]")
    with pytest.raises(ValueError, match="labels.json holds no object"):
        opened(data)


def test_byte_order_mark_and_missing_suffix_are_accepted(data):
    entries = json.loads(captions(data).read_text())
    entries[0]["image"] = entries[0]["image"].removesuffix(".png")
    captions(data).write_text("\ufeff" + json.dumps(entries), encoding="utf-8")
    train, _ = opened(data)
    assert len(train) == 6 and are_labelled(train.tiles)


def test_repeated_and_uncaptioned_tiles_are_left_out(data, capsys):
    entries = json.loads(captions(data).read_text())
    in_val = json.loads(captions(data, "val").read_text())[0]
    entries[0]["caption"], entries[1]["caption"], entries[2]["caption"] = [], "  \n", None
    entries[3]["caption"] = ["", "a lake"]
    entries += [entries[3], in_val]
    captions(data).write_text(json.dumps(entries))
    train, val = opened(data)
    names = [entry["image"] for entry in entries]
    assert [tile.name for tile in train.tiles] == names[3:6] and len(val) == 3
    assert train.tiles[0].captions == ("a lake",)
    expected = [
        f"3 entries without a caption: entry 1, {names[0]}; entry 2, {names[1]}; "
        f"entry 3, {names[2]}",
        f"1 entry with an image of an earlier one: entry 7, {names[3]}",
    ]
    output = capsys.readouterr().out
    assert all(f"Left out: {captions(data).name}: {line}." in output for line in expected)
    assert f"1 tile also in val: {in_val['image']}." in output
    assert main(["validate-data", str(data)]) == 1
    checked = capsys.readouterr().out
    assert all(line in checked for line in expected)
    assert f"captions 35: 1 tile in train and in val: {in_val['image']}" in checked


def test_tiles_of_the_test_split_are_left_out(data, capsys):
    entries = json.loads(captions(data).read_text())
    captions(data, "test").write_text(json.dumps(entries[:2]))
    train, _ = opened(data)
    assert [tile.name for tile in train.tiles] == [entry["image"] for entry in entries[2:]]
    assert "2 tiles also in test" in capsys.readouterr().out


def test_validation_leaves_out_unreadable_tiles(data, capsys):
    names = [tile.name for tile in ChatEarthNet(data, "val").tiles]
    truncate_image(data, names[1])
    assert [tile.name for tile in opened(data)[1].tiles] == [names[0], names[2]]
    output = capsys.readouterr().out
    assert f"1 tile that cannot be validated on: {names[1]}: unreadable" in output
    assert [tile.name for tile in opened(data, max_eval_samples=2)[1].tiles] == [names[0], names[2]]


@pytest.mark.parametrize(("split", "purpose"), [("train", "train"), ("val", "validate")])
def test_split_without_tiles_is_refused(split, purpose, data):
    captions(data, split).write_text("[]")
    with pytest.raises(ValueError, match=f"caps_35_{split}.json has no tile to {purpose} on"):
        opened(data)


def start(data: Path, output: Path, language: str, *options: str) -> TrainingRun:
    arguments = [f"--data_dir={data}", f"--output_dir={output}", f"--vlm_model={language}"]
    arguments += ["--olmoearth_model=random-v1.2-nano", "--device=cpu", "--num_geo_queries=4"]
    arguments += ["--lora_r=4", "--batch_size=2", "--warmup_steps=0", "--validate_every=0"]
    return TrainingRun([*arguments, *options], output.with_suffix(".log"))


def failure(run: TrainingRun) -> str:
    """The one sentence of a run's failure."""
    code, output = run.finish()
    assert code == 2 and "Traceback" not in output, output
    sentences = [line for line in output.splitlines() if line.startswith("earthvlm: ")]
    assert len(sentences) == 1, output
    return sentences[0]


@pytest.mark.slow
def test_failed_worker_ends_the_run_in_one_sentence(data, tiny_language, tmp_path):
    output = tmp_path / "run"
    options = ["--num_workers=2", "--num_epochs=500", "--save_every=1", "--save_total_limit=2"]
    run = start(data, output, tiny_language, *options)
    wait_for(output / "checkpoints" / "1", run)
    # The workers of the next epoch read the tiles again.
    shutil.rmtree(data / "s2_band_5_6_7_images")
    sentence = failure(run)
    assert sentence.startswith("earthvlm: generated_") and " cannot be used: " in sentence
    kept = Path(sentence.partition("weights are saved in ")[2].partition(":")[0])
    assert (kept / "fusion.safetensors").is_file()


@pytest.mark.slow
def test_killed_worker_ends_the_run_in_one_sentence(data, tiny_language, tmp_path):
    output = tmp_path / "run"
    options = ["--num_workers=1", "--num_epochs=500", "--save_every=1", "--save_total_limit=2"]
    run = start(data, output, tiny_language, *options)
    wait_for(output / "checkpoints" / "1", run)
    killed = 0
    while run.is_running:
        with suppress(psutil.NoSuchProcess):  # the run or a worker ends meanwhile
            for worker in psutil.Process(run.pid).children():
                worker.kill()
                killed += 1
        time.sleep(0.01)
    sentence = failure(run)
    assert killed and "A data loader process was killed" in sentence
    assert "weights are saved in " in sentence


@pytest.mark.slow
def test_unreadable_tiles_leave_nothing_saved(data, tiny_language, tmp_path):
    for tile in ChatEarthNet(data, "train").tiles:
        truncate_image(data, tile.name)
    run = start(data, tmp_path / "run", tiny_language, "--num_workers=0")
    assert failure(run).endswith("Nothing was trained yet, so nothing is saved.")
