"""Large images are cut into tiles, and an index follows the changes of a folder."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform

from earthvlm.embeddings.dataset import locked, read_image_ids
from earthvlm.embeddings.folder_index import index_folder
from earthvlm.embeddings.indexed_images import IndexSettings
from earthvlm.embeddings.rows import make_rows
from earthvlm.scenes.analysis.spectral_indices import find_cloud
from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.tiling import TiledRaster
from earthvlm.search.index import SceneIndex
from tests.support.made_scenes import TinyBridge, get_ids

SIZE = 64  # pixels of a tile
UTM = "EPSG:32633"
WEST, NORTH = 400_000, 5_800_000  # metres


def write_image(path, height=160, width=130, seed=0, change=None, **tags) -> np.ndarray:
    """A GeoTIFF of 12 bands at 10 m in UTM; returns its values `[12, H, W]`."""
    values = np.random.default_rng(seed).integers(200, 3000, (12, height, width), np.uint16)
    if change is not None:
        change(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 12, "crs": UTM}
    profile |= {"transform": from_origin(WEST, NORTH, 10, 10)}
    with rasterio.open(path, "w", height=height, width=width, **profile) as file:
        file.write(values)
        file.descriptions = FILE_ORDER_12
        file.update_tags(**tags)
    return values


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    write_image(folder / "north.tif", 80, 80, seed=1, ACQUISITION_DATE="2020-06-30")
    write_image(folder / "more" / "south.tif", 64, 64, seed=2)
    return folder


class CountingBridge(TinyBridge):
    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, scenes):
        self.embedded += [scene.name for scene in scenes]
        return super().embed(scenes)


def run(images, output, bridge=None, report=lambda _: None, **settings):
    settings = IndexSettings(**{"tile_size": SIZE} | settings)
    bridge = bridge or CountingBridge()
    return index_folder(images, output, bridge, "owner/bridge", settings, report=report)


# Tiles


def test_tiles_cover_an_image_with_their_coordinates(images):
    values = write_image(images / "north.tif", seed=1, ACQUISITION_DATE="2020-06-30")
    tiles = {scene.name: scene for scene in TiledRaster(images / "north.tif", "n", SIZE).tiles()}
    assert len(tiles) == 9
    tops, lefts = (0, 64, 96), (0, 64, 66)  # the last reach back to be whole
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            tile = tiles[f"n_r{row:03d}_c{column:03d}"]
            window = values[:, top : top + SIZE, left : left + SIZE]
            red = tile.reflectance[:, :, 2]  # B04
            np.testing.assert_array_equal(red, window[FILE_ORDER_12.index("B04")])
            x, y = WEST + 10 * (left + SIZE / 2), NORTH - 10 * (top + SIZE / 2)
            (longitude,), (latitude,) = transform(UTM, "EPSG:4326", [x], [y])
            assert tile.longitude == pytest.approx(longitude, abs=1e-6)
            assert tile.latitude == pytest.approx(latitude, abs=1e-6)
            assert str(tile.date) == "2020-06-30"


def test_cloudy_and_empty_tiles_are_marked(tmp_path):
    def change(values):
        values[:, :64, 64:] = np.random.default_rng(9).integers(5000, 5500, (12, 64, 64))
        values[:, 64:104, :64] = 0  # most of it outside the swath
        values[:, 64:, 64:] = np.random.default_rng(9).integers(5000, 5500, (12, 64, 64))
        for band in ("B11", "B12"):
            values[FILE_ORDER_12.index(band), 64:, 64:] //= 12  # snow is dark here

    write_image(tmp_path / "image.tif", 128, 128, change=change)
    image = TiledRaster(tmp_path / "image.tif", "image", SIZE)
    rows = make_rows(tmp_path, list(image.tiles()), TinyBridge(), split_clouds=True, captions=False)
    found = {row["image_id"]: row["split"] for row in rows}
    assert found == {
        "image_r000_c000": "clear",
        "image_r000_c001": "cloudy",
        "image_r001_c001": "clear",
    }
    assert image.empty == 1


@pytest.mark.slow
def test_cloud_is_measured_on_real_scenes(practice_data):
    for path in sorted((practice_data / "scenes").glob("*.tif")):
        cloud = find_cloud(Scene.open(path)).mean()
        assert cloud > 0.9 if "2020-01-18" in path.name else cloud < 0.05


def test_offset_is_detected_from_the_whole_image(tmp_path):
    def change(values):
        values += 1000  # newer products
        values[:, :, 64:] += 1500  # a tile in which nothing is dark

    write_image(tmp_path / "image.tif", 64, 128, change=change)  # it records no date
    dark, bright = (s for s in TiledRaster(tmp_path / "image.tif", "image", SIZE).tiles())
    assert dark.reflectance.min() == pytest.approx(200, abs=30)
    assert bright.reflectance.min() == pytest.approx(1700, abs=30)


# The index


def test_index_follows_changes_of_the_folder(images, tmp_path):
    output, messages = tmp_path / "index", []
    bridge = CountingBridge()
    report = run(images, output, bridge, report=messages.append)
    assert (report.embedded, report.tiles, report.kept, report.refused) == (2, 5, 0, 0)
    assert (report.total, report.undated, report.unplaced) == (5, 1, 0)
    assert "more/south.tif: 1 tile (1 of 2 images)." in messages
    index = SceneIndex.from_pretrained(output)
    assert len(index) == 5 == len(bridge.embedded)
    tile = index.get("north_r001_c001")
    assert (tile.split, tile.source, tile.caption) == ("clear", None, None)
    assert str(tile.date) == "2020-06-30"
    again = Scene.open(tile.scene_file)
    assert index.search(again, k=1, bridge=bridge)[0].image_id == tile.image_id

    bridge.embedded.clear()
    os.utime(images / "north.tif", (1, 1))  # another time, the same content
    assert run(images, output, bridge).kept == 2
    assert bridge.embedded == []

    write_image(images / "north.tif", 80, 80, seed=3)  # changed
    write_image(images / "new.tif", 64, 64, seed=4)
    report = run(images, output, bridge)
    assert (report.embedded, report.kept) == (2, 1)
    assert {name.partition("_")[0] for name in bridge.embedded} == {"north", "new"}
    assert len(SceneIndex.from_pretrained(output)) == 6

    (images / "north.tif").unlink()
    report = run(images, output, bridge, report=messages.append)
    assert (report.removed, report.kept) == (1, 2)
    assert messages[-1] == "north.tif no longer exists and was removed from the index."
    left = SceneIndex.from_pretrained(output)
    assert sorted(get_ids(left.browse())) == ["more__south", "new"]
    assert sorted(p.name for p in (output / "scenes").iterdir()) == ["more__south.tif", "new.tif"]


def test_captions_and_scene_files_are_optional(images, tmp_path):
    settings = {"captions": True, "keep_scenes": False, "source": "Mine."}
    run(images, tmp_path / "index", **settings)
    result = SceneIndex.from_pretrained(tmp_path / "index").get("more__south")
    assert (result.caption, result.scene_file) == ("This is more__south.", None)
    assert result.source == "Mine."
    assert not (tmp_path / "index" / "scenes").exists()


def test_other_settings_are_refused(images, tmp_path):
    run(images, tmp_path / "index")
    before = get_ids(SceneIndex.from_pretrained(tmp_path / "index").browse())
    for setting, message in (
        ({"tile_size": 32}, "tile_size 64 \\(now 32\\); give"),
        ({"captions": True}, "captions False \\(now True\\); give"),
        ({"keep_scenes": False, "source": "Mine."}, "source None .*, keep_scenes True "),
        ({"boa_offset": True}, "boa_offset None \\(now True\\); give"),
    ):
        with pytest.raises(ValueError, match=f"index was indexed with {message}"):
            run(images, tmp_path / "index", **setting)
        assert get_ids(SceneIndex.from_pretrained(tmp_path / "index").browse()) == before


def test_interrupted_index_resumes(images, tmp_path, monkeypatch):
    monkeypatch.setattr("earthvlm.embeddings.folder_index.PART_ROWS", 1)
    output, bridge = tmp_path / "index", CountingBridge()
    embed = bridge.embed

    def interrupt(scenes):
        if scenes[0].name.startswith("north"):
            raise KeyboardInterrupt
        return embed(scenes)

    bridge.embed = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(images, output, bridge)
    assert get_ids(SceneIndex.from_pretrained(output).browse()) == ["more__south"]
    bridge.embed = embed
    bridge.embedded.clear()
    report = run(images, output, bridge)
    assert (report.embedded, report.kept) == (1, 1)
    assert len(SceneIndex.from_pretrained(output)) == 5
    assert "more__south" not in bridge.embedded


def _index_slowly(images, output) -> None:
    import earthvlm.embeddings.folder_index

    earthvlm.embeddings.folder_index.PART_ROWS = 1
    run(images, output, report=lambda _: time.sleep(0.2))  # time for the kill


@pytest.mark.slow
def test_killed_index_resumes(images, tmp_path):
    for seed, name in enumerate("abcdef"):
        write_image(images / f"{name}.tif", 64, 64, seed=seed)
    run(images, tmp_path / "whole")
    output, context = tmp_path / "index", multiprocessing.get_context("fork")
    output.mkdir()
    # While tiles are written, and between the parts of the dataset.
    for pattern in ("scenes/*.tif", "part-00002.parquet", "part-00004.parquet"):
        process = context.Process(target=_index_slowly, args=(images, output))
        process.start()
        while not list(output.glob(pattern)) and process.is_alive():
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the index was finished before the kill"
    done = len(list(output.glob("part-*.parquet")))
    assert done
    assert run(images, output).kept == done
    whole, again = (SceneIndex.from_pretrained(tmp_path / name) for name in ("whole", "index"))
    assert sorted(get_ids(again.browse())) == sorted(get_ids(whole.browse()))
    assert all(result.scene_file for result in again.browse())


def test_images_of_another_folder_are_refused(images, tmp_path):
    run(images, tmp_path / "output")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(next(images.glob("*.tif")), other / "another.tif")
    before = read_image_ids(tmp_path / "output")
    with pytest.raises(ValueError, match="is the index of other images, such as"):
        run(other, tmp_path / "output")
    assert read_image_ids(tmp_path / "output") == before


def test_unreadable_images_are_reported_and_left_out(images, tmp_path):
    (images / "text.tif").write_text("no image")
    (images / "cut.tif").write_bytes((images / "north.tif").read_bytes()[:30_000])
    messages = []
    report = run(images, tmp_path / "index", report=messages.append)
    assert (report.embedded, report.refused) == (2, 2)
    refused = [line for line in messages if "left out" in line]
    assert len(refused) == 2 and all("\n" not in line for line in refused)
    assert refused[0].startswith("cut.tif was left out: 'cut.tif' is damaged")
    assert refused[1].startswith("text.tif was left out: 'text.tif' is not an image")


def test_one_process_writes_at_a_time(images, tmp_path):
    output = tmp_path / "index"
    output.mkdir()
    with (
        locked(output),
        pytest.raises(ValueError, match="another process is writing to .*index; wait"),
    ):
        run(images, output)
    assert run(images, output).embedded == 2


def _index(images, output) -> str:
    try:
        return str(run(images, output).tiles)
    except ValueError as error:
        return str(error)


def test_concurrent_runs_keep_the_index_whole(images, tmp_path):
    output = tmp_path / "index"
    with multiprocessing.get_context("fork").Pool(3) as pool:
        messages = pool.starmap(_index, [(images, output)] * 3)
    assert "5" in messages and all(s in ("5", "0") or "another process" in s for s in messages)
    assert len(SceneIndex.from_pretrained(output)) == 5
    assert not list(output.glob(".*parquet*"))


def test_another_bridge_and_empty_folders_are_refused(images, tmp_path):
    output = tmp_path / "index"
    run(images, output)
    bridge = CountingBridge()
    bridge.revision = "def456"
    with pytest.raises(ValueError, match="at revision abc123, and this one has revision def456"):
        run(images, output, bridge)
    with pytest.raises(ValueError, match="is a file; give the folder that holds it"):
        run(next(path for path in images.iterdir() if path.is_file()), output)
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere to index"):
        run(tmp_path / "nowhere", output)
    shutil.rmtree(images)
    images.mkdir()
    with pytest.raises(FileNotFoundError, match="holds no scenes to index"):
        run(images, output)
    assert len(SceneIndex.from_pretrained(output)) == 5  # a missing folder removes nothing


def test_scenes_are_added_to_an_index(images, tmp_path):
    from tests.support.made_scenes import make_scene

    run(images, tmp_path / "index")
    bridge = CountingBridge()
    index = SceneIndex.from_pretrained(tmp_path / "index")
    more = index.add([make_scene("one"), make_scene("two", 1)], bridge, splits=["a", "b"])
    assert len(more) == 7 and more.splits == ("a", "b", "clear")
    assert more.search(make_scene("one"), k=1, bridge=bridge)[0].image_id == "one"
    with pytest.raises(ValueError, match="has a scene 'two' already"):
        more.add([make_scene("two")], bridge)
    # Indexing the folder again leaves what was added.
    assert run(images, tmp_path / "index").kept == 2
    assert len(SceneIndex.from_pretrained(tmp_path / "index")) == 7


def test_command_indexes_and_prints_the_counts(images, tmp_path, monkeypatch, capsys):
    from earthvlm.cli import main

    monkeypatch.setattr("earthvlm.cli.scenes.index.load_bridge", lambda *_: CountingBridge())
    command = ["index", str(images), "--output", str(tmp_path / "index"), "--tile_size", "64"]
    assert main(command) == 0
    messages = capsys.readouterr()
    assert messages.out.startswith("2 images embedded (5 tiles, 0 of them cloudy; 0 without data")
    assert messages.err.splitlines()[1] == "earthvlm: north.tif: 4 tiles (2 of 2 images)."
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("0 images embedded (0 tiles")
    for wrong in (["index", str(tmp_path / "nowhere"), "--output", "x"], ["index", "."]):
        assert main(wrong) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_new_content_of_equal_size_and_time_is_detected(images, tmp_path):
    run(images, tmp_path / "index")
    path = images / "north.tif"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # as a product processed again, unpacked by a tool that keeps its time
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert run(images, tmp_path / "index").embedded == 1


def test_images_with_equal_tile_names_are_refused(images, tmp_path):
    (images / "a").mkdir(exist_ok=True)
    for seed, name in enumerate(("north.tiff", "a/b.tif", "a__b.tif"), start=7):
        write_image(images / name, 64, 64, seed=seed)
    messages = []
    first = run(images, tmp_path / "index", report=messages.append)
    assert first.refused == 2
    refused = [line for line in messages if "left out" in line]
    assert refused[0].startswith("a__b.tif was left out: its tiles would have the same names")
    assert refused[1].startswith("north.tiff was left out: ") and "north.tif;" in refused[1]
    again = run(images, tmp_path / "index")
    assert (again.embedded, again.refused, again.kept) == (0, 2, first.embedded)
    index = SceneIndex.from_pretrained(tmp_path / "index")
    assert len(set(get_ids(index.browse()))) == len(index)
