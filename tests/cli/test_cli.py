"""The command line: what it prints, what it refuses, and that it refuses before loading a model."""

from __future__ import annotations

import datetime
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import earthvlm
from earthvlm.cli import main
from earthvlm.embeddings.filters import SceneFilter
from earthvlm.scenes.bands import FILE_ORDER_12
from tests.support.generated_chatearthnet import write_generated_chatearthnet

BUNDLED = Path(earthvlm.__file__).parent / "bundled"
needs_bundled_bridge = pytest.mark.skipif(
    not (BUNDLED / "bridge" / "config.json").is_file(),
    reason="the bundled bridge has not been built: earthvlm/bundled/bridge has no config.json",
)
needs_bundled_index = pytest.mark.skipif(
    not any((BUNDLED / "embeddings").glob("*.parquet")),
    reason="the bundled embeddings have not been built: earthvlm/bundled/embeddings is empty",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=2, val=1)
    return folder


@pytest.fixture
def scene_file(data_dir) -> str:
    return str(data_dir / "s2_rgb_images" / "s2_images" / "generated_0000.png")


class FakeBridge:
    """Answers at once, and keeps what it was asked."""

    revision = "fake"

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def generate(self, scenes, prompt, **options) -> list[str]:
        self.calls.append({"scenes": scenes, "prompt": prompt, **options})
        return [f"{prompt}\n{scene.name}" for scene in scenes]


@pytest.fixture
def bridge(monkeypatch) -> FakeBridge:
    fake = FakeBridge()
    for command in ("describe", "search"):
        monkeypatch.setattr(f"earthvlm.cli.{command}.load_bridge", lambda *_: fake)
    return fake


@pytest.fixture
def no_model(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model was loaded before the input was refused")

    for command in ("describe", "search"):
        monkeypatch.setattr(f"earthvlm.cli.{command}.load_bridge", refuse)


def assert_one_sentence(code: int, captured, *words: str) -> None:
    assert code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n"), captured.err
    assert captured.err.startswith("earthvlm: ")
    assert len(captured.err) < 500
    for word in words:
        assert word in captured.err


# What it prints


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
    assert set(objects[0]) == keys
    assert len(objects[0]["bands"]) == 9
    assert objects[0]["date"] is None


def test_date_and_place_of_a_geotiff_are_in_the_json(bridge, tmp_path, capsys):
    import datetime

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
    monkeypatch.setattr("earthvlm.cli.describe.PIXELS_AT_ONCE", 2 * 64 * 64)
    assert main(["describe", *[scene_file] * 3]) == 0
    assert [len(call["scenes"]) for call in bridge.calls] == [2, 1]


def test_the_next_batch_is_opened_while_one_is_answered(bridge, scene_file, monkeypatch):
    from earthvlm.cli import describe

    opened, enough = [], threading.Event()

    def open_scene(path, *options):
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


def test_a_folder_is_answered_file_by_file_and_what_fails_is_named(bridge, tmp_path, capsys):
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


def test_search_prints_rank_similarities_place_and_caption(monkeypatch, capsys):
    from earthvlm.search.index import SceneResult, SearchResults

    searched = {}
    found = SceneResult(
        *("lake", "A lake\nbeside forest.", "val", -12.5, 52.47, "ESA", None, None),
        caption_similarity=0.61234,
        caption_rank=4,
        date=datetime.date(2020, 6, 30),
    )

    class FakeIndex:
        def get(self, image_id):
            return found

        def search(self, queries, **options):
            searched.update(options, queries=queries)
            return SearchResults([found, replace(found, longitude=None, caption=None, date=None)])

    monkeypatch.setattr(
        "earthvlm.search.index.SceneIndex.from_pretrained", lambda *_, **__: FakeIndex()
    )
    options = "--top_k 2 --split val --bbox -4 -5 3 5 --from_date 2020-01-01 --source ESA".split()
    assert main(["search", "a lake", *options]) == 0
    where = SceneFilter("val", (-4, -5, 3, 5), datetime.date(2020, 1, 1), source="ESA")
    assert searched == {"queries": ["a lake"], "k": 2, "where": where, "bridge": None}
    assert capsys.readouterr().out == (
        "  1  lake  caption 0.612 (#4)  52.4700° N 12.5000° W  2020-06-30\n"
        "     A lake beside forest.\n"
        "  2  lake  caption 0.612 (#4)\n"
        "     (no caption)\n"
    )
    assert main(["search", "a lake", "--like_id", "lake", "--json"]) == 0
    assert searched["queries"] == ["a lake", found]
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["rank"] == 1
    assert first["caption_similarity"] == 0.61234
    assert first["scene_similarity"] is None
    assert first["date"] == "2020-06-30"


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"earthvlm {earthvlm.__version__}\n"


@pytest.mark.parametrize("command", ["describe", "search"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"examples:\n  earthvlm {command} " in capsys.readouterr().out


# What it refuses


def write_png_header(path: Path, side: int) -> None:
    """A PNG that declares its size and holds almost no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_geotiff(path: Path, values: np.ndarray | None, **profile: object) -> None:
    """Write `[C, H, W]` values, or only the header of a file where there are none."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    if values is not None:
        count, height, width = values.shape
        profile |= {"count": count, "height": height, "width": width, "dtype": values.dtype.name}
    with pytest.warns(NotGeoreferencedWarning):  # noqa: PT031  writing warns as it closes
        with rasterio.open(path, "w", driver="GTiff", **profile) as file:
            if values is not None:
                file.write(values)
                if len(values) == len(FILE_ORDER_12):
                    file.descriptions = FILE_ORDER_12


def write_not_an_image(folder: Path) -> Path:
    (folder / "noise.png").write_bytes(bytes(range(256)) * 8)
    return folder / "noise.png"


def write_truncated_png(folder: Path) -> Path:
    path = folder / "truncated.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def write_truncated_tif(folder: Path) -> Path:
    path = folder / "truncated.tif"
    noise = np.random.default_rng(0).integers(100, 4000, (12, 64, 64), dtype=np.uint16)
    write_geotiff(path, noise)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def write_text_tif(folder: Path) -> Path:
    (folder / "text.tif").write_text("This is a shopping list: bread, milk.\n" * 20)
    return folder / "text.tif"


def write_empty_file(folder: Path) -> Path:
    (folder / "empty.tif").touch()
    return folder / "empty.tif"


def write_lone_triplet_png(folder: Path) -> Path:
    write_generated_chatearthnet(folder, train=1, val=0)
    (folder / "s2_band_8_11_12_images" / "generated_0000.png").unlink()
    return folder / "s2_band_5_6_7_images" / "generated_0000.png"


def write_one_pixel_png(folder: Path) -> Path:
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    return folder / "one.png"


def write_one_pixel_tif(folder: Path) -> Path:
    write_geotiff(folder / "one.tif", np.full((12, 1, 1), 900, np.uint16))
    return folder / "one.tif"


def write_huge_png(folder: Path) -> Path:
    write_png_header(folder / "huge.png", 30_000)
    return folder / "huge.png"


def write_huge_tif(folder: Path) -> Path:
    side = {"height": 30_000, "width": 30_000}
    layout = {"SPARSE_OK": "TRUE", "tiled": True, "blockxsize": 512, "blockysize": 512}
    write_geotiff(folder / "huge.tif", None, count=12, dtype="uint16", **side, **layout)
    return folder / "huge.tif"


def write_nan(folder: Path) -> Path:
    write_geotiff(folder / "nan.tif", np.full((12, 32, 32), np.nan, np.float32))
    return folder / "nan.tif"


def write_zeros(folder: Path) -> Path:
    write_geotiff(folder / "zeros.tif", np.zeros((12, 32, 32), np.uint16))
    return folder / "zeros.tif"


def write_two_bands(folder: Path) -> Path:
    write_geotiff(folder / "two.tif", np.full((2, 32, 32), 900, np.uint16))
    return folder / "two.tif"


BAD_SCENES = {
    "not an image": (write_not_an_image, "noise.png"),
    "truncated PNG": (write_truncated_png, "truncated.png"),
    "truncated GeoTIFF": (write_truncated_tif, "truncated.tif"),
    "text named .tif": (write_text_tif, "text.tif"),
    "empty file": (write_empty_file, "empty.tif"),
    "missing partner of a triplet": (write_lone_triplet_png, "s2_band_8_11_12_images"),
    "1 x 1 PNG": (write_one_pixel_png, "one.png"),
    "1 x 1 GeoTIFF": (write_one_pixel_tif, "one.tif"),
    "30,000 x 30,000 PNG": (write_huge_png, "huge.png"),
    "30,000 x 30,000 GeoTIFF": (write_huge_tif, "huge.tif"),
    "all NaN": (write_nan, "nan.tif"),
    "all zeros": (write_zeros, "zeros.tif"),
    "2 bands": (write_two_bands, "two.tif"),
    "a folder": (lambda folder: folder, "folder"),
    "no such file": (lambda folder: folder / "missing.tif", "missing.tif"),
}


@pytest.mark.parametrize("kind", BAD_SCENES)
@pytest.mark.parametrize("command", [["describe"], ["search", "--scene"]])
def test_a_scene_that_cannot_be_read_is_refused(kind, command, no_model, tmp_path, capfd):
    write, named = BAD_SCENES[kind]
    path = write(tmp_path)
    assert_one_sentence(main([*command, str(path)]), capfd.readouterr(), named)


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


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "conquer",
        "describe",
        "describe x.tif --bogus",
        "describe x.tif --temperature -1",
        "describe x.tif --temperature nan",
        "describe x.tif --temperature inf",
        "describe x.tif --top_p 0",
        "describe x.tif --top_p 1.1",
        "describe x.tif --top_k -1",
        "describe x.tif --top_k 1.5",
        "describe x.tif --max_length 0",
        "describe x.tif --max_length 2049",
        "describe x.tif --max_length many",
        "describe x.tif --device abacus",
        "describe x.tif --boa_offset maybe",
        "search",
        "search lake --bbox 1 2 3",
        "search lake --bbox 1 50 3 40",
        "search lake --from_date yesterday",
        "search lake --from_date 2020-02-01 --to_date 2020-01-01",
        "search --like_id no_such_tile",
        "search lake --engine abacus",
        "search lake --top_k 0",
        "search lake --index no/such/index",
    ],
)
def test_arguments_out_of_range_are_refused(arguments, no_model, capfd):
    assert_one_sentence(main(arguments.split()), capfd.readouterr())


def test_an_interrupt_is_quiet(monkeypatch, scene_file, capfd):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("earthvlm.cli.describe.load_bridge", interrupt)
    assert main(["describe", scene_file]) == 130
    assert capfd.readouterr() == ("", "")


# As a process of its own


def run_earthvlm(*arguments: str, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "earthvlm", *arguments]
    root = str(Path(earthvlm.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(
        command,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        # argparse itself passes over a closed pipe that it meets unbuffered.
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": ""},
        **options,
    )


def test_a_process_refuses_a_text_file_in_one_sentence(tmp_path):
    result = run_earthvlm("describe", str(write_text_tif(tmp_path)))
    assert_one_sentence(
        result.returncode, SimpleNamespace(out=result.stdout, err=result.stderr), "text.tif"
    )


def test_a_closed_pipe_is_quiet():
    read, write = os.pipe()
    os.close(read)
    try:
        result = run_earthvlm("--help", stdout=write)
    finally:
        os.close(write)
    assert result.returncode == 141
    assert result.stderr == ""


# With models


@needs_bundled_bridge
@pytest.mark.slow
def test_the_bundled_bridge_describes_a_scene(scene_file, capfd):
    assert main(["describe", scene_file, "--max_length", "32"]) == 0
    captured = capfd.readouterr()
    assert captured.out.strip()
    assert captured.err == ""


@needs_bundled_index
def test_the_bundled_index_is_searched(capfd):
    assert main(["search", "a lake beside forest", "--top_k", "3", "--json"]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    results = [json.loads(line) for line in captured.out.splitlines()]
    assert [r["rank"] for r in results] == [1, 2, 3]
    assert all(-1 <= r["scene_similarity"] <= 1 for r in results)


@needs_bundled_bridge
@needs_bundled_index
@pytest.mark.slow
def test_the_bundled_index_is_searched_by_a_scene(scene_file, capfd):
    assert main(["search", "--scene", scene_file, "--top_k", "2", "--json"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 2
