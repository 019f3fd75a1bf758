"""`earthvlm describe`: answers, batches and refusals."""

from __future__ import annotations

import datetime
import io
import json
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

import earthvlm
from earthvlm.cli import main
from earthvlm.cli.output import write_json
from tests.cli.support import assert_one_sentence, needs_bundled_bridge
from tests.support.made_spectra import paint


def test_one_scene_prints_the_answer_alone(bridge, scene_file, capsys):
    assert main(["describe", scene_file, "--prompt", "Is there water?"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Is there water?\ngenerated_0000\n"
    assert captured.err == ""


def test_several_scenes_print_a_line_each(bridge, scene_file, capsys):
    other = scene_file.replace("0000", "0001")
    assert main(["describe", scene_file, "--image_path", other]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{scene_file}: Describe this scene. generated_0000"
    assert lines[1] == f"{other}: Describe this scene. generated_0001"


def test_json_has_an_object_a_scene(bridge, data_dir, capsys):
    names = ["generated_0000.png", "generated_0001.png"]
    assert main(["describe", *names, "--data_dir", str(data_dir), "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [o["path"] for o in objects] == names
    keys = {"path", "answer", "bands", "date", "longitude", "latitude", "notes"}
    keys |= {"measured_shares", "measured_errors", "warnings", "disagreements"}
    assert set(objects[0]) == keys
    assert len(objects[0]["bands"]) == 9
    assert objects[0]["date"] is None


def test_json_has_letters_as_they_are(bridge, scene_file, tmp_path, capsys):
    path = tmp_path / "Überlingen.png"
    shutil.copy(scene_file, path)
    assert main(["describe", str(path), "--json"]) == 0
    printed = capsys.readouterr().out
    assert "Überlingen.png" in printed and json.loads(printed)["path"] == str(path)


def test_json_is_json_where_stdout_lacks_a_letter(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    assert write_json({"place": "Łódź"}) == '{"place": "\\u0141\\u00f3d\\u017a"}'
    assert write_json({"place": "Überlingen"}) == '{"place": "Überlingen"}'


def test_date_and_place_of_a_geotiff_are_in_the_json(bridge, tmp_path, capsys):

    reflectance = np.full((16, 16, 3), 800.0)
    scene = earthvlm.Scene.from_array(
        reflectance,
        bands=("B02", "B03", "B04"),
        date=datetime.date(2021, 7, 16),
        longitude=2.8,
        latitude=42.3,
        name="dated",
    )
    scene.save(tmp_path / "dated.tif")
    assert main(["describe", str(tmp_path / "dated.tif"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["date"] == "2021-07-16"
    assert answer["longitude"] == pytest.approx(2.8, abs=1e-3)
    assert answer["latitude"] == pytest.approx(42.3, abs=1e-3)


def test_answers_are_compared_with_measurements(bridge, tmp_path, capsys, monkeypatch):
    paint("water", "water", "dense vegetation").save(tmp_path / "lake.tif")
    scene, prompt = str(tmp_path / "lake.tif"), "Is there water?"
    answers = {"No, there is no water in view.": 1, "Yes, water covers about 65 percent of it.": 0}
    for answer, count in answers.items():
        monkeypatch.setattr(
            bridge, "generate", lambda scenes, *_, a=answer, **__: [a] * len(scenes)
        )
        assert main(["describe", scene, "--prompt", prompt, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["measured_shares"]["water"] == pytest.approx(2 / 3, abs=0.001)
        assert found["measured_errors"]["water"] == 0.02 and found["warnings"] == []
        assert len(found["disagreements"]) == count
        assert main(["describe", scene, "--prompt", prompt]) == 0
        captured = capsys.readouterr()
        assert captured.out == f"{answer}\n"
        assert ("The model says no water; measured: 67" in captured.err) == bool(count)


def test_clouds_are_warned_about(bridge, tmp_path, capsys):
    paint("cloud", "cloud", "dense vegetation").save(tmp_path / "cloudy.tif")
    assert main(["describe", str(tmp_path / "cloudy.tif")]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Describe this scene.\ncloudy\n" and "Cloud covers 67" in captured.err


def test_notes_go_to_stderr(bridge, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    assert main(["describe", str(photo)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Describe this scene.\nphoto\n"
    assert captured.err.startswith(f"earthvlm: {photo}: ")


def test_a_bad_scene_among_others_leaves_them_answered(bridge, scene_file, capsys):
    assert main(["describe", "missing.tif", scene_file]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{scene_file}: Describe this scene. generated_0000\n"
    assert captured.err.count("\n") == 1
    assert "missing.tif" in captured.err


def test_options_reach_the_bridge(bridge, scene_file):
    options = "--max_length 7 --temperature 0.5 --top_p 0.9 --top_k 3".split()
    assert main(["describe", scene_file, *options]) == 0
    call = bridge.calls[0]
    assert (call["max_length"], call["temperature"], call["top_p"], call["top_k"]) == (
        7,
        0.5,
        0.9,
        3,
    )


def test_many_scenes_are_answered_a_batch_at_a_time(bridge, scene_file, capsys):
    assert main(["describe", *[scene_file] * 37]) == 0
    assert [len(call["scenes"]) for call in bridge.calls] == [32, 5]
    assert len(capsys.readouterr().out.splitlines()) == 37


def test_large_scenes_are_answered_fewer_at_a_time(bridge, scene_file, monkeypatch):
    monkeypatch.setattr("earthvlm.cli.scenes.describe.PIXELS_AT_ONCE", 2 * 64 * 64)
    assert main(["describe", *[scene_file] * 3]) == 0
    assert [len(call["scenes"]) for call in bridge.calls] == [2, 1]


def test_the_next_batch_is_opened_while_one_is_answered(bridge, scene_file, monkeypatch):
    from earthvlm.cli.scenes import describe

    opened, enough = [], threading.Event()

    def open_scene(path, *options, **more):
        opened.append(path)
        if len(opened) == 2 * 8 - 1:
            enough.set()
        return earthvlm.Scene.open(path)

    def generate(scenes, *options, **more):
        bridge.calls.append(len(scenes))
        assert enough.wait(timeout=60)
        return ["" for _ in scenes]

    monkeypatch.setattr(describe, "SCENES_AT_ONCE", 8)
    monkeypatch.setattr(describe, "open_scene", open_scene)
    monkeypatch.setattr(bridge, "generate", generate)
    assert main(["describe", *[scene_file] * 17]) == 0
    assert bridge.calls == [8, 8, 1]


@pytest.mark.parametrize("words", ["Is there water?", "是否有水？"])
@pytest.mark.parametrize("quoted", [True, False])
def test_a_question_in_place_of_a_path_is_explained(words, quoted, no_model, scene_file, capfd):
    given = [words] if quoted else words.split()
    code = main(["describe", scene_file, *given])
    assert_one_sentence(code, capfd.readouterr(), f"{given[-1]!r} is no file", "--prompt 'Is")


def test_a_folder_is_answered_and_failures_are_named(bridge, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("b.png", "a.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "broken.tif").write_text("no scene")
    (tmp_path / "notes.txt").write_text("no scene either, and not tried")
    assert main(["describe", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    answered = [line.split(": ")[0] for line in captured.out.splitlines()]
    assert answered == [str(tmp_path / "a.jpg"), str(tmp_path / "b.png")]
    assert "broken.tif" in captured.err and "notes" not in captured.err


def test_the_folder_of_a_dataset_is_its_triplets(bridge, data_dir, capsys):
    assert main(["describe", str(data_dir), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 and all(len(row["bands"]) == 9 for row in rows)


def test_a_folder_without_scenes_is_refused(no_model, tmp_path, capsys):
    code = main(["describe", str(tmp_path)])
    assert_one_sentence(code, capsys.readouterr(), str(tmp_path), "holds no scenes", ".tif")


@pytest.mark.parametrize(
    ("prompt", "said"), [("", "empty"), (" \n", "empty"), ("x" * 100_000, "100,000")]
)
def test_a_prompt_that_cannot_be_answered_is_refused(prompt, said, no_model, scene_file, capfd):
    code = main(["describe", scene_file, "--prompt", prompt])
    assert_one_sentence(code, capfd.readouterr(), said)


def test_an_unknown_model_path_is_refused(no_model, scene_file, capfd):
    code = main(["describe", scene_file, "--model_path", "no/such/bridge"])
    assert_one_sentence(code, capfd.readouterr(), "no/such/bridge", "bundled")


def test_a_bridge_folder_without_its_configuration_is_refused(scene_file, tmp_path, capfd):
    (tmp_path / "fusion.safetensors").touch()
    code = main(["describe", scene_file, "--model_path", str(tmp_path)])
    assert_one_sentence(code, capfd.readouterr(), "config.json")


@pytest.mark.parametrize("text", ["{}", "not JSON", '{"model_type": "llama"}', "[]"])
def test_a_configuration_of_something_else_is_refused(text, scene_file, tmp_path, capfd):
    (tmp_path / "config.json").write_text(text)
    code = main(["describe", scene_file, "--model_path", str(tmp_path)])
    assert_one_sentence(code, capfd.readouterr(), "config.json")


def test_a_device_that_is_not_here_is_refused(scene_file, capfd):
    code = main(["describe", scene_file, "--device", "cuda:99"])
    assert_one_sentence(code, capfd.readouterr(), "cuda:99")


@needs_bundled_bridge
@pytest.mark.slow
def test_the_bundled_bridge_describes_a_scene(scene_file, capfd):
    assert main(["describe", scene_file, "--max_length", "32"]) == 0
    captured = capfd.readouterr()
    assert captured.out.strip()
    # Where answer and map disagree, a sentence says so; nothing else is said.
    assert all("The model says" in line for line in captured.err.splitlines())
