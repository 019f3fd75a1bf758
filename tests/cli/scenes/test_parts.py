"""Parts, bands, products and addresses on the command line."""

from __future__ import annotations

import json

import pytest

from earthvlm.cli import main
from earthvlm.scenes.bands import FILE_ORDER_12
from tests.cli.support import assert_one_sentence
from tests.support.made_items import NAME as ITEM
from tests.support.made_items import write_item
from tests.support.made_products import NAME, make_tile, pack, write_safe
from tests.support.made_rasters import make_values, write_tiff
from tests.support.stac_server import serve_stac


def describe(capsys, *arguments) -> dict:
    assert main(["describe", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_window_and_a_bounding_box_are_described(bridge, tmp_path, capsys):
    path = write_tiff(tmp_path / "a.tif", make_values(side=96), FILE_ORDER_12)
    west = describe(capsys, path, "--window", "0", "0", "32", "32")
    east = describe(capsys, path, "--window", "64", "0", "32", "32")
    assert west["longitude"] < 3 < east["longitude"] and west["latitude"] == pytest.approx(
        east["latitude"], abs=1e-3
    )
    box = [3.0, 42.45, 3.005, 42.455]
    found = describe(capsys, path, "--bbox", *box)
    assert box[0] - 0.001 < found["longitude"] < box[2] + 0.001
    code = main(["describe", str(path), "--bbox", "10", "40", "11", "41"])
    assert_one_sentence(
        code, capsys.readouterr(), "is not in 'a.tif', which covers", "(2.9942 42.4480 "
    )


def test_a_wrong_box_is_told_the_order(bridge, tmp_path, capsys):
    path = write_tiff(tmp_path / "a.tif", make_values(side=96), FILE_ORDER_12)
    for box in (["10", "40", "11", "41"], ["4", "47", "3", "43"]):
        code = main(["describe", str(path), "--bbox", *box])
        assert_one_sentence(code, capsys.readouterr(), "west, south, east", "north")
    for option, order in (("--bbox", "WEST SOUTH EAST NORTH"), ("--window", "COLUMN ROW WIDTH")):
        code = main(["describe", str(path), option, "4,47,16,55"])
        assert_one_sentence(code, capsys.readouterr(), f"expected 4 arguments: {order}")


def test_bands_are_named_on_the_command_line(bridge, tmp_path, capsys):
    values = make_values(("B04", "B03", "B02", "B08"))
    path = write_tiff(tmp_path / "a.tif", values)
    code = main(["describe", str(path)])
    assert_one_sentence(code, capsys.readouterr(), "4 bands without Sentinel-2 names")
    found = describe(capsys, path, "--bands", "B04,B03,B02,B08")
    assert found["bands"] == ["B02", "B03", "B04", "B08"]
    code = main(["describe", str(path), "--bands", "B04,,B02"])
    assert_one_sentence(code, capsys.readouterr(), "is not a list of bands such as B04,B03,B02")


def test_products_are_described(bridge, tmp_path, capsys):
    safe = write_safe(tmp_path / "scenes", make_tile())
    assert describe(capsys, safe)["date"] == "2023-07-16"
    archive = pack(safe, tmp_path / "scenes" / "product.zip")
    assert main(["describe", str(tmp_path / "scenes")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(safe), str(archive)]
    assert lines[0].endswith(NAME) and lines[1].endswith(NAME)


def test_addresses_are_described(bridge, tmp_path, capsys):
    write_item(tmp_path, properties={"earthsearch:boa_offset_applied": True})
    with serve_stac(tmp_path) as server:
        found = describe(capsys, f"{server.address}/{ITEM}.json", "--window", "8", "8", "32", "32")
        assert len(found["bands"]) == 12 and found["date"] == "2023-07-16"
        code = main(["describe", f"{server.address}/nothing.json"])
    assert_one_sentence(code, capsys.readouterr(), "There is no 'nothing.json' at 127.0.0.1")
