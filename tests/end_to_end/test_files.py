"""Files that visitors open, in a browser: photos, triplets, two dates, and wrong files."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from earthvlm.scenes.bands import FILE_ORDER_12
from tests.end_to_end.conftest import END_TO_END, either_width
from tests.end_to_end.visitor import ask, open_file, open_tab, read_details, read_warning, upload
from tests.support.made_products import make_tile, pack, write_band, write_safe
from tests.support.made_rasters import make_values, write_tiff

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = END_TO_END


def save_picture(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(20, 200, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def read_descriptions(page: Page) -> list[str]:
    """Wait for the model's descriptions of both scenes and their measured shares."""
    descriptions = [page.locator(f"#{which}-description") for which in ("earlier", "later")]
    for each in descriptions:
        each.locator(".mark:not(.model)").wait_for()
    return [each.inner_text().lower() for each in descriptions]


@either_width
def test_photos_and_triplets_open_wrong_files_are_named(
    page: Page, tmp_path: Path, keep: Callable[..., None]
):
    open_file(page, save_picture(tmp_path / "garden.png"))
    assert page.locator("#scene-details .notes li", has_text="red, green and blue").count() == 1
    assert "cannot be measured" in page.locator("#scene-details").inner_text()
    assert page.locator("#composite input").count() == 1
    assert ask(page, "Is there water?")
    keep("photo")

    names = ("x_rgb.png", "x_band_5_6_7.png", "x_band_8_11_12.png")
    triplet = [save_picture(tmp_path / name) for name in names]
    upload(page, *triplet)
    page.locator("#scene-details", has_text="9 of 12").wait_for()
    upload(page, *triplet[:2])
    assert "2 files" in read_warning(page)

    before = read_details(page)
    wrong = {
        "notes.tif": b"this is not an image",
        "empty.png": b"",
        "cut.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00",
    }
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
        upload(page, tmp_path / name)
        page.locator(".notice").wait_for()
        keep("wrong-file", full_page=False)
        warning = read_warning(page)
        assert name in warning and "HTTP" not in warning
        assert read_details(page) == before
    assert ask(page, "Is there water?")


@either_width
def test_two_dates_and_two_places_are_compared(
    page: Page, practice_data: Path, keep: Callable[..., None]
):
    scenes = practice_data / "scenes"
    later, earlier = (scenes / f"boadella_{date}_L2A.tif" for date in ("2022-03-08", "2020-02-02"))
    open_tab(page, "Compare")
    with page.expect_file_chooser() as chooser:
        page.locator("#upload-pair").click()
    chooser.value.set_files([later, earlier])
    page.locator("#changes table").wait_for()
    headings = page.locator("#pair .port-name")
    assert [h.inner_text() for h in headings.all()] == ["2 February 2020", "8 March 2022"]
    water = page.locator("#changes tr", has_text="Water").inner_text()
    assert re.search(r"2[01].%\s+12.%\s+−8\.\d ± \d\.\d", water), water
    keep("swipe")
    right = page.locator("#pair .port").last
    page.get_by_label("Divider").fill("20")
    assert "20%" in right.evaluate("port => getComputedStyle(port).clipPath")
    page.locator("#pair").get_by_label("Zoom in").click()
    pictures = page.locator("#pair .port img")
    moved = {picture.get_attribute("style") for picture in pictures.all()}
    assert len(moved) == 1 and "scale(1.6)" in moved.pop()
    page.get_by_role("button", name="Side by side").click()
    first, second = (port.bounding_box() for port in page.locator("#pair .port").all())
    assert first["x"] + first["width"] <= second["x"] and first["y"] == second["y"]
    keep("side-by-side")

    maps = page.locator("#changes img[data-cover]:visible")
    assert maps.count() == 1 and maps.get_attribute("data-cover") == "water"
    page.locator("#changes").get_by_role("button", name="Dense vegetation").click()
    assert maps.count() == 1 and maps.get_attribute("data-cover") == "dense vegetation"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    keep("two-dates")

    with page.expect_file_chooser() as chooser:
        page.locator("#upload-one").click()
    chooser.value.set_files([later])
    page.locator("#changes h2", has_text="cannot be compared over time").wait_for()
    assert re.search(r"two places, [\d,]+ km apart", page.locator("#changes .notes").inner_text())
    assert page.locator("#changes table, #changes img").count() == 0
    page.locator("#describe-pair").click()
    assert len(read_descriptions(page)) == 2


@either_width
def test_products_bands_and_parts_of_large_images_open(
    page: Page, tmp_path: Path, keep: Callable[..., None]
):
    side = 2304
    pixels = make_values(side=side // 24).repeat(24, axis=0).repeat(24, axis=1)
    stored = {"interleave": "band", "tiled": True, "compress": "deflate", "zlevel": 1}
    open_file(page, write_tiff(tmp_path / "large.tif", pixels, FILE_ORDER_12, **stored))
    assert "1024 × 1024" in read_details(page)
    page.get_by_role("button", name="Open a part").click()
    page.locator("#picture .viewport").click(position={"x": 90, "y": 90})
    page.get_by_role("button", name="Back to the overview").click()
    page.get_by_role("button", name="Open a part").wait_for()
    page.locator("#picture").get_by_label("Size of the part in pixels").select_option("512")
    page.get_by_role("button", name="Open a part").click()
    keep("choose-a-part", full_page=False)
    page.locator("#picture .viewport").press("Enter")  # the part in the middle
    page.locator("#scene-details", has_text="512 × 512").wait_for()

    bands = [tmp_path / f"T31TDG_20230716_{band}.tif" for band in ("B02", "B03", "B04", "B08")]
    for path, band in zip(bands, np.moveaxis(make_values()[:, :, 1:5], 2, 0), strict=True):
        write_band(path, band, 10)
    upload(page, *bands)
    page.locator("#scene-details strong", has_text="T31TDG_20230716").wait_for()
    assert "4 of 12" in read_details(page)
    product = pack(write_safe(tmp_path / "product", make_tile()), tmp_path / "product.zip")
    drop_file(page, product)
    page.locator("#scene-details", has_text="12 of 12").wait_for()

    same = np.random.default_rng(0).integers(500, 4000, (64, 64, 1)).astype(np.uint16)
    upload(page, write_tiff(tmp_path / "unnamed.tif", same.repeat(12, axis=2)))
    orders = page.locator("#picture .order")
    orders.filter(has_text="ESA's order").wait_for()
    assert orders.count() == 3 and orders.first.locator("img").count() == 2
    keep("orders")
    orders.filter(has_text="ESA's order").click()
    page.locator("#scene-details strong", has_text="unnamed").wait_for()
    assert "12 of 12" in read_details(page)


# Records in how many places at once, and in which, the page tells of progress.
RECORD = """() => {
  window.most = window.nested = 0;
  window.places = new Set();
  const shown = {opacityProperty: true, visibilityProperty: true};
  const look = () => {
    const found = [...document.querySelectorAll('.progress-text, .uploading, .sending')]
      .filter((each) => each.checkVisibility(shown)).map((each) => each.closest('[id]').id);
    window.nested += [...document.querySelectorAll('#upload button button')]
      .filter((each) => each.checkVisibility(shown)).length;
    window.most = Math.max(window.most, new Set(found).size);
    found.forEach((place) => window.places.add(place));
    requestAnimationFrame(look);
  };
  look();
}"""


@either_width
def test_slow_uploads_tell_of_progress_in_one_place(page: Page, lakeside: Path):
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    speed = {"uploadThroughput": 200_000, "downloadThroughput": -1, "latency": 0, "offline": False}
    network.send("Network.emulateNetworkConditions", speed)
    page.evaluate(RECORD)
    open_file(page, lakeside)
    page.locator("#upload", has_text="Click to Upload").wait_for()
    page.locator("#upload .progress-text, .uploading").wait_for(state="detached")
    assert page.evaluate("[...places]") == ["upload"] and page.evaluate("most") == 1
    assert page.evaluate("nested") == 0

    open_tab(page, "Search")
    page.locator(".result").first.wait_for()
    page.evaluate("places.clear(); most = 0")
    with page.expect_file_chooser() as chooser:
        page.locator("#search-file").click()
    chooser.value.set_files(lakeside)
    page.locator("#search-summary", has_text="most similar to lakeside").wait_for()
    page.locator(".progress-text, .sending").first.wait_for(state="hidden")
    places = set(page.evaluate("[...places]"))
    assert {"search-file"} <= places <= {"search-file", "search-summary"}
    assert page.evaluate("most") <= 2  # for a moment, when one ends as the other begins

    open_tab(page, "Compare")
    page.evaluate("places.clear(); most = 0")
    with page.expect_file_chooser() as chooser:
        page.locator("#upload-pair").click()
    chooser.value.set_files([lakeside, save_other_date(lakeside)])
    page.locator("#changes h2").first.wait_for()
    page.locator(".progress-text, .sending").first.wait_for(state="hidden")
    places = set(page.evaluate("[...places]"))
    assert {"upload-pair"} <= places <= {"upload-pair", "pair"}
    assert page.evaluate("most") <= 2


def save_other_date(path: Path) -> Path:
    """Return a copy of a file under another name."""
    other = path.with_name("later.tif")
    other.write_bytes(path.read_bytes())
    return other


def drop_file(page: Page, path: Path) -> None:
    """Drop a file on the page, outside of the place for uploads."""
    content = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(
        """([name, content]) => {
             const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
             const dataTransfer = new DataTransfer();
             dataTransfer.items.add(new File([bytes], name));
             for (const kind of ['dragover', 'drop']) {
               const options = {bubbles: true, cancelable: true, dataTransfer};
               document.querySelector('#about').dispatchEvent(new DragEvent(kind, options));
             }
           }""",
        [path.name, content],
    )
