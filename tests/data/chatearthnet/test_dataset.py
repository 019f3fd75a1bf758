"""ChatEarthNet on disk: validation, captions, and tiles kept in memory."""

from __future__ import annotations

import numpy as np
from PIL import Image

from earthvlm.cli import main
from earthvlm.data.chatearthnet import dataset
from earthvlm.data.chatearthnet.dataset import ChatEarthNet, find_hub_id
from earthvlm.data.chatearthnet.validation import check_chatearthnet
from tests.support.generated_chatearthnet import write_generated_chatearthnet


def test_validation_lists_tiles_that_training_skips(tmp_path, capsys):
    names = write_generated_chatearthnet(tmp_path, train=6, val=2)
    assert main(["validate-data", str(tmp_path), "--workers", "1"]) == 0
    assert "every tile with a caption can be used" in capsys.readouterr().out

    partner = tmp_path / "s2_band_5_6_7_images" / names[0]
    partner.unlink()
    damaged = next(tmp_path.glob(f"s2_band_8_11_12_images/**/{names[1]}"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    for path in tmp_path.rglob(names[2]):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    for path in tmp_path.rglob(names[3]):
        path.unlink()
    extra = next(tmp_path.glob("s2_rgb_images/**/*.png"))
    extra.with_name("uncaptioned.png").write_bytes(extra.read_bytes())

    assert main(["validate-data", str(tmp_path), "--workers", "2"]) == 1
    report = capsys.readouterr().out.splitlines()
    assert report[0] == "captions 35, train: 6 tiles, published are 98,092"
    assert not any(line.startswith("captions 35:") for line in report)  # there is no test split
    kinds = ("missing partner", "unreadable", "blank", "missing", "on disk without a caption")
    for kind, name in zip(kinds, [*names[:4], "uncaptioned.png"], strict=True):
        assert f"{kind}: 1 tile: {name}" in report
    tiles = ChatEarthNet(tmp_path, "train")
    assert [tile.name for tile in tiles] == names[4:6]
    assert tiles.left_out[-1].startswith("check.json: 4 tiles of ")


def test_complete_caption_sets_are_compared_with_the_paper(tmp_path):
    write_generated_chatearthnet(tmp_path, train=2, val=1)
    folder = tmp_path / "json_files"
    captions = (folder / "ChatEarthNet_caps_35_val.json").read_text()
    for split in dataset.SPLITS:
        (folder / f"ChatEarthNet_caps_4v_{split}.json").write_text(captions)
    lines = check_chatearthnet(tmp_path).lines()
    assert "captions 4v, test: 1 tile" in lines
    assert "captions 4v: 3 tiles, published are 10,000" in lines


def test_the_hub_id_follows_from_tile_names(tmp_path):
    names = write_generated_chatearthnet(tmp_path, train=2, val=1)
    assert find_hub_id(ChatEarthNet(tmp_path, "train").tiles) is None
    captions = tmp_path / "json_files" / "ChatEarthNet_caps_35_train.json"
    text = captions.read_text()
    for name, real in zip(names, ("1908_3064_patch00.png", "5107_3291_patch10.png"), strict=False):
        text = text.replace(name, real)
    captions.write_text(text)
    assert find_hub_id(ChatEarthNet(tmp_path, "train").tiles) == dataset.HUB_ID


def test_recently_read_tiles_stay_in_memory(tmp_path, monkeypatch):
    write_generated_chatearthnet(tmp_path, train=3, val=1)
    opened, open_scene = [], dataset.Scene.open
    monkeypatch.setattr(
        dataset.Scene, "open", lambda root, name: opened.append(name) or open_scene(root, name)
    )
    tiles = ChatEarthNet(tmp_path, "train", memory=2 * 64 * 64 * 12 * 4)
    names = [tile.name for tile in tiles]
    for index in (0, 1, 0, 2, 0, 1):  # the third takes the place of the second
        tiles[index]
    assert opened == [names[i] for i in (0, 1, 2, 1)]
    none = ChatEarthNet(tmp_path, "train", memory=0)
    none[0], none[0]
    assert opened[-2:] == [names[0]] * 2


def test_a_folder_without_captions_is_refused(tmp_path, capsys):
    assert main(["validate-data", str(tmp_path)]) == 2
    assert "holds no captions of ChatEarthNet" in capsys.readouterr().err


def test_a_mistyped_folder_is_named_with_one_near_it(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "GeoChat_Instruct.json").touch()
    for typed, meant in (("mien", "mine"), ("GeoChat_Instrukt.json", "GeoChat_Instruct.json")):
        assert main(["validate-data", str(tmp_path / typed)]) == 2
        error = f"The folder {tmp_path / typed} is missing; did you mean {tmp_path / meant}?"
        assert capsys.readouterr().err == f"earthvlm: {error}\n"
    assert main(["validate-data", str(tmp_path / "other")]) == 2
    assert "other is missing: check its path. For ChatEarthNet" in capsys.readouterr().err
