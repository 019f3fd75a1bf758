"""The app in a browser: ask, look, stop, search, and bad input that it lives through."""

from __future__ import annotations

import base64
import itertools
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from earthvlm.scene import Scene
from earthvlm.sentinel2 import BANDS
from tests.end_to_end.conftest import BOTH_WIDTHS, PATIENCE_MS, HeldAnswers
from tests.end_to_end.visitor import (
    answers,
    ask,
    open_file,
    open_tab,
    questions,
    read_facts,
    read_notice,
    upload,
    wait_for_count,
    wait_until_idle,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    # Gradio's own, about pandas; as an error it would end tasks of its queue.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing"),
]

TABS = ("Chat", "Search", "Map", "Compare")
# Reflectance x 10000 in the order of BANDS.
FOREST = (250, 450, 300, 3200, 800, 2300, 2900, 3400, 1600, 750, 220, 3300)
LAKE = (500, 400, 250, 120, 200, 130, 130, 110, 60, 40, 600, 100)
# Remembers every text that the last answer had on its way.
WATCH_ANSWER = """() => {
  window.answerSoFar = [];
  setInterval(() => {
    const bots = document.querySelectorAll('#chat [data-testid="bot"]');
    const text = bots.length ? bots[bots.length - 1].innerText.trim() : '';
    if (text && text !== window.answerSoFar.at(-1)) window.answerSoFar.push(text);
  }, 10);
}"""


@pytest.fixture
def scene_file(tmp_path: Path) -> Path:
    """A GeoTIFF with all bands: a lake on the left, and forest."""
    array = np.empty((96, 128, 12))
    array[:] = FOREST
    array[:, :48] = LAKE
    array *= np.random.default_rng(0).normal(1, 0.05, array.shape)
    path = tmp_path / "lakeside.tif"
    Scene.from_array(array, BANDS).save(path)
    return path


def test_an_uploaded_geotiff_is_shown_and_answered_word_by_word(
    page: Page, scene_file: Path, app_bridge, monkeypatch
):
    stream = app_bridge.stream

    def pause_between_words(*arguments, **options):
        for piece in stream(*arguments, **options):
            yield piece
            time.sleep(0.05)  # model and browser share two cores here: let the page be drawn

    monkeypatch.setattr(app_bridge, "stream", pause_between_words)
    open_file(page, scene_file)
    facts = page.locator("#facts").inner_text()
    assert "128 × 96 pixels" in facts and "12 of 12" in facts
    assert re.search(r"Water\s+3[78]", facts), facts

    page.evaluate(WATCH_ANSWER)
    answer = ask(page, "Describe this scene.")

    seen = page.evaluate("window.answerSoFar")
    words = [text for text in seen if answer.startswith(text)]
    assert len(words) >= 4, seen
    assert len(words[0]) < len(words[-1]) == len(answer)
    assert page.get_by_label("Your question").input_value() == ""


def test_a_conversation_goes_on_until_it_is_cleared(page: Page):
    ask(page, "Is there water?")
    page.get_by_role("button", name="Which land cover dominates?").click()
    answers(page).nth(1).wait_for()
    wait_until_idle(page)
    assert answers(page).count() == 2

    page.get_by_role("button", name="Clear").click()
    answers(page).first.wait_for(state="detached")
    assert questions(page).count() == 0
    assert ask(page, "Is there water?")


@BOTH_WIDTHS
def test_the_picture_is_drawn_with_other_bands_zoomed_and_moved(page: Page):
    picture = page.locator("#picture img")
    pictures = {picture.get_attribute("src")}
    for name in ("near infrared", "short-wave infrared", "NDVI"):
        page.locator("#composite").get_by_label(name, exact=True).check(force=True)
        page.locator(f'#picture img[alt$="{name}"]').wait_for()
        pictures.add(picture.get_attribute("src"))
    assert len(pictures) == 4
    page.locator("#picture .legend").wait_for()

    def transform() -> str:
        return page.locator("#picture .sheet").evaluate("sheet => sheet.style.transform")

    page.locator("#picture").get_by_role("button", name="Zoom in").click()
    assert "scale(1.6)" in transform()
    page.locator("#picture .viewport").focus()
    before = transform()
    page.keyboard.press("ArrowRight")
    assert transform() != before
    page.keyboard.press("0")
    assert "scale(1)" in transform()


@BOTH_WIDTHS
def test_where_an_answer_looked_is_laid_over_the_scene_and_by_word(page: Page):
    page.locator("#look").click()
    assert "no answer yet" in read_notice(page)
    answer = ask(page, "Is there water?")
    page.locator("#look").click()
    words = page.locator("#picture .word")
    words.first.wait_for()
    assert [w.inner_text() for w in words.all()][1:-1] == answer.split()

    def overlay() -> str:
        return page.locator("#picture canvas").evaluate("canvas => canvas.toDataURL()")

    whole = overlay()
    words.nth(1).click()
    assert words.nth(1).get_attribute("aria-pressed") == "true"
    assert overlay() != whole
    page.get_by_role("button", name="Hide").click()
    assert page.locator("#picture canvas").is_hidden()
    assert ask(page, "Which land cover dominates?")  # the model answers as before


def test_a_question_is_asked_again_and_edited(page: Page, held_answers: HeldAnswers):
    def let_it_be_answered() -> None:
        looking = page.locator("#chat", has_text="Looking at the scene")
        looking.wait_for()
        page.locator("#stop:not([disabled])").wait_for()
        held_answers.let_go.release()
        looking.wait_for(state="detached")
        wait_until_idle(page)
        wait_for_count(questions(page), 1)
        wait_for_count(answers(page), 1)

    page.get_by_role("button", name="Is there water?").click()
    let_it_be_answered()
    page.get_by_label("Retry").last.click()
    let_it_be_answered()
    page.get_by_label("Edit").first.click()
    page.locator("#chat textarea").fill("Which land cover dominates?")
    page.get_by_label("Submit").click()
    let_it_be_answered()

    asked, temperatures = zip(*held_answers.asked, strict=True)
    assert asked == ("Is there water?", "Is there water?", "Which land cover dominates?")
    assert temperatures[1] > temperatures[0]  # the same words again would help nobody
    assert questions(page).inner_text().strip() == asked[2]


def test_who_waits_is_told_how_many_are_ahead(page: Page, app_url: str, held_answers: HeldAnswers):
    other = page.context.browser.new_context()
    second = other.new_page()
    second.goto(app_url)
    second.locator("#picture img").wait_for()
    second.get_by_role("button", name="Is there water?").click()
    second.locator("#chat", has_text="Looking at the scene").wait_for()
    page.get_by_role("button", name="Is there water?").click()
    ahead = page.locator("#chat", has_text="1 question before yours")
    ahead.wait_for()
    held_answers.let_go.release(2)
    ahead.wait_for(state="detached")
    answers(second).first.wait_for()
    wait_until_idle(page)
    assert questions(page).count() == answers(page).count() == 1
    other.close()


def test_an_example_has_a_sentence_and_opens(page: Page):
    examples = page.locator("#examples .thumbnail-item")
    for sentence in examples.all_inner_texts():
        assert re.fullmatch(r"\w.*\w[\s%]*\.\s*", sentence.strip(), re.DOTALL), sentence
    before = page.locator("#facts strong").inner_text()
    ask(page, "Is there water?")
    examples.nth(1).click()
    page.locator("#facts strong").filter(has_not_text=before).wait_for()
    wait_for_count(answers(page), 0)  # another scene, another conversation


def test_answers_and_links_are_copied_and_the_picture_is_downloaded(page: Page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])

    def pasted() -> str:
        return page.evaluate("navigator.clipboard.readText()")

    answer = ask(page, "Is there water?")
    page.get_by_label("Copy message").last.click()
    page.wait_for_function(
        "answer => navigator.clipboard.readText().then(text => text.trim() === answer)", arg=answer
    )
    page.get_by_role("button", name="Copy a link").click()
    page.locator(".tool.done").wait_for()
    assert pasted().endswith("&q=Is+there+water%3F")
    assert f"scene={page.locator('#facts strong').inner_text()}&" in pasted()

    page.get_by_role("radio", name="NDVI").check(force=True)
    page.locator('#picture img[alt$="NDVI"]').wait_for()
    with page.expect_download() as download:
        page.get_by_label("Download the picture").click()
    shown = page.locator("#picture img").get_attribute("src")
    assert Path(download.value.path()).read_bytes() == base64.b64decode(shown.split(",")[1])
    assert download.value.suggested_filename.endswith(".png")


def test_a_conversation_is_saved_with_what_was_measured(page: Page):
    page.locator("#save").click()
    assert "no conversation yet" in read_notice(page)
    answer = ask(page, "Is there water?")
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "conversation.md"
    text = Path(download.value.path()).read_text("utf-8")
    assert "Is there water?" in text and answer.split()[0] in text
    assert "Measured, not said by the model" in text and "MNDWI" in text


def test_a_link_opens_its_scene_and_asks_its_question(page: Page, app_url: str, app_index):
    name = app_index.browse(app_index.splits[-1])[0].image_id
    page.goto(f"{app_url}?scene={name}&q=Is+there+water%3F")
    page.locator("#facts strong", has_text=name).wait_for()
    answers(page).first.wait_for()
    wait_until_idle(page)
    assert questions(page).inner_text().strip() == "Is there water?"

    page.goto(f"{app_url}?scene=%3Cimg%20src=x%3E")
    assert "no scene" in read_notice(page).lower()


@BOTH_WIDTHS
def test_two_dates_stand_side_by_side_and_their_change_is_measured(
    page: Page, practice_data: Path, screenshots: Path
):
    scenes = practice_data / "scenes"
    later, earlier = (scenes / f"boadella_{date}_L2A.tif" for date in ("2022-03-08", "2020-02-02"))
    open_tab(page, "Compare")
    with page.expect_file_chooser() as chooser:
        page.locator("#open-two").click()
    chooser.value.set_files([later, earlier])
    page.locator("#changes table").wait_for()
    headings = page.locator(".pair h2")
    assert [h.inner_text() for h in headings.all()] == ["2 February 2020", "8 March 2022"]
    water = page.locator("#changes tr", has_text="Water").inner_text()
    assert re.search(r"21.%\s+12.%\s+−8\.[78]", water), water
    assert page.locator("#changes img").is_visible()

    page.locator("#describe-both").click()
    page.locator(".said .mark:not(.model)").nth(1).wait_for()
    assert all(len(said.inner_text()) > 40 for said in page.locator(".said").all())
    page.screenshot(
        path=screenshots / f"two-dates-{page.viewport_size['width']}.png", full_page=True
    )


def test_a_photo_says_what_it_lacks_and_offers_true_colour_only(page: Page, tmp_path: Path):
    rng = np.random.default_rng(0)
    photo = tmp_path / "garden.png"
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(photo)
    open_file(page, photo)
    assert page.locator("#facts .notes li", has_text="red, green and blue").count() == 1
    assert "no cover can be measured" in page.locator("#facts").inner_text()
    assert page.locator("#composite input").count() == 1


def test_three_chatearthnet_pngs_become_one_scene(page: Page, tmp_path: Path):
    rng = np.random.default_rng(0)
    names = ("x_rgb.png", "x_band_5_6_7.png", "x_band_8_11_12.png")
    for name in names:
        pixels = rng.integers(20, 200, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    upload(page, *(tmp_path / name for name in names))
    page.locator("#facts", has_text="9 of 12").wait_for()
    upload(page, *(tmp_path / name for name in names[:2]))
    assert "2 files" in read_notice(page)


def test_stop_ends_an_answer_and_the_next_one_comes(page: Page, app_bridge, monkeypatch):
    spoken, stream = [], app_bridge.stream

    def speak_slowly(*args, **options):
        for piece in stream(*args, **options):
            spoken.append(piece)
            yield piece
            time.sleep(0.3)

    monkeypatch.setattr(app_bridge, "stream", speak_slowly)
    page.get_by_label("Your question").fill("Describe this scene.")
    page.get_by_label("Your question").press("Enter")
    page.wait_for_function(
        """() => [...document.querySelectorAll('#chat [data-testid="bot"]')]
                 .some(bot => /\\w/.test(bot.innerText) && !bot.innerText.includes('Looking'))"""
    )
    page.get_by_role("button", name="Stop").click()
    wait_until_idle(page)
    said, pieces = answers(page).last.inner_text(), len(spoken)
    time.sleep(1)
    assert len(spoken) == pieces
    assert answers(page).last.inner_text() == said

    monkeypatch.setattr(app_bridge, "stream", stream)
    whole = ask(page, "Describe this scene.")
    assert len(whole) > len(said)


def test_another_scene_ends_the_answer_and_the_conversation(
    page: Page, app_bridge, scene_file: Path, monkeypatch
):
    stream = app_bridge.stream

    def speak_slowly(*args, **options):
        for piece in stream(*args, **options):
            time.sleep(0.2)
            yield piece

    monkeypatch.setattr(app_bridge, "stream", speak_slowly)
    page.get_by_role("button", name="Describe this scene.").click()
    answers(page).first.wait_for()
    open_file(page, scene_file)
    wait_until_idle(page)
    time.sleep(1)
    assert answers(page).count() == 0
    assert ask(page, "Is there water?")


def test_wrong_files_are_named_and_the_app_lives_on(page: Page, tmp_path: Path):
    before = read_facts(page)
    wrong = {
        "notes.tif": b"this is not an image",
        "empty.png": b"",
        "cut.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00",
    }
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
        upload(page, tmp_path / name)
        assert name in read_notice(page)
        assert read_facts(page) == before
    assert ask(page, "Is there water?")


def test_unusable_questions_are_explained_and_the_app_lives_on(page: Page):
    page.get_by_role("button", name="Send").click()
    assert "empty" in read_notice(page)

    page.get_by_label("Your question").fill("water? " * 14_286)
    page.get_by_role("button", name="Send").click()
    assert "2,000" in read_notice(page)
    assert answers(page).count() == 0
    assert ask(page, "Is there water?")


def test_a_failing_model_tells_no_secrets(page: Page, app_bridge, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("secret detail")
        yield

    monkeypatch.setattr(app_bridge, "stream", fail)
    page.get_by_role("button", name="Is there water?").click()
    assert "secret" not in read_notice(page)
    wait_until_idle(page)
    monkeypatch.undo()
    assert ask(page, "Is there water?")


def test_too_many_questions_are_told_that_the_model_is_busy(page: Page, app_bridge, monkeypatch):
    from earthvlm.serving import Busy, Line

    def refuse(*_) -> None:
        raise Busy("Busy: 17 questions are waiting already. Try again in about a minute.")

    monkeypatch.setattr(Line, "join", refuse)
    page.get_by_label("Your question").fill("Is there water?")
    page.get_by_role("button", name="Send").click()
    assert read_notice(page).startswith("Busy: 17 questions")
    wait_until_idle(page)
    assert page.get_by_label("Your question").input_value() == "Is there water?"  # nothing is lost
    monkeypatch.undo()
    page.get_by_role("button", name="Send").click()
    answers(page).first.wait_for()
    wait_until_idle(page)


def test_visitors_do_not_see_each_other(page: Page, scene_file: Path, app_url: str):
    other = page.context.browser.new_context()
    try:
        second = other.new_page()
        second.goto(app_url)
        second.locator("#picture img").wait_for()
        first_facts = page.locator("#facts").inner_text()
        open_file(second, scene_file)
        ask(second, "Is there water?")
        assert page.locator("#facts").inner_text() == first_facts
        assert answers(page).count() == 0
    finally:
        other.close()


def test_a_visitor_who_leaves_frees_the_model(page: Page, app_bridge, app_url, monkeypatch):
    speaking, ended, given_up = (threading.Event() for _ in range(3))
    stream = app_bridge.stream

    def never_end(*args, stop, **options):
        try:
            while not (stop.is_set() or given_up.is_set()):
                for piece in stream(*args, stop=stop, **options):
                    speaking.set()
                    yield piece
        finally:
            ended.set()

    monkeypatch.setattr(app_bridge, "stream", never_end)
    other = page.context.browser.new_context()
    second = other.new_page()
    second.goto(app_url)
    second.locator("#picture img").wait_for()
    second.get_by_role("button", name="Is there water?").click()
    try:
        assert speaking.wait(PATIENCE_MS / 1000)
        second.close()
        assert ended.wait(PATIENCE_MS / 1000)  # by itself that answer would go on for ever
    finally:
        given_up.set()
    other.close()
    monkeypatch.undo()
    assert ask(page, "Is there water?")  # the model has no other for itself


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_page_comes_whole_fits_its_window_and_asks_nobody_else(browser, app_url, width: int):
    """Nothing jumps: the layout shift is under 0.1, which is what Web Vitals call good."""
    window = browser.new_context(viewport={"width": width, "height": 800})
    page = window.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(
        """window.shift = 0;
           new PerformanceObserver(list => list.getEntries().forEach(entry => {
             if (!entry.hadRecentInput) window.shift += entry.value;
           })).observe({type: 'layout-shift', buffered: true});"""
    )
    page.goto(app_url)
    page.locator("#picture img").wait_for()
    page.wait_for_timeout(1000)  # watched that long
    assert page.evaluate("window.shift") < 0.1
    for tab in TABS:
        open_tab(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    window.close()
    assert not [url for url in asked if not url.startswith((app_url, "data:", "blob:"))]


@BOTH_WIDTHS
def test_nothing_serious_stands_in_anybodys_way(page: Page, screenshots: Path):
    """axe-core's serious and critical rules, contrast AA among them, on every tab."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    ask(page, "Is there water?")
    page.locator("#look").click()
    page.locator("#picture .words").wait_for()
    for tab, scheme in itertools.product(TABS, ("light", "dark")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            "dark => document.body.classList.contains('dark') === dark", arg=scheme == "dark"
        )
        open_tab(page, tab)
        page.mouse.move(0, 0)
        page.wait_for_function(
            "!document.getAnimations().some(each => each.playState === 'running')"
        )
        name = f"{tab.lower()}-{page.viewport_size['width']}-{scheme}.png"
        page.screenshot(path=screenshots / name, full_page=True)
        found = axe.run(page).response["violations"]
        serious = [(v["id"], v["nodes"]) for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, (tab, scheme, serious)


def test_the_keyboard_reaches_and_asks(page: Page):
    page.get_by_label("Your question").focus()
    page.keyboard.type("Is there water?")
    page.keyboard.press("Enter")
    answers(page).first.wait_for()
    wait_until_idle(page)
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    for wanted in ("viewport", "look", "save", "clear", "tool"):
        assert any(wanted in name for name in reached), (wanted, reached)


def test_every_action_has_a_name_and_says_what_it_does(app_page):
    public = [fn for fn in app_page.fns.values() if fn.api_visibility == "public"]
    names = [fn.api_name for fn in public]
    assert {"open_scene", "open_named", "draw", "ask", "stop", "clear", "search"} <= set(names)
    assert {"describe_scene", "ask_scene", "search_scenes", "compare_two"} <= set(names)
    assert len(names) == len(set(names))
    assert all(fn.fn.__doc__ for fn in public)
