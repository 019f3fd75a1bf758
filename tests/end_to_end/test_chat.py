"""The Chat tab in a browser: open, ask, stop, retry, edit, copy, save, share, attention map."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.conftest import END_TO_END, PacedAnswers, either_width
from tests.end_to_end.visitor import (
    answers,
    ask,
    open_example,
    open_file,
    pasted,
    questions,
    read_message,
    read_warning,
    wait_for_count,
    wait_until_idle,
    wait_until_looking,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = END_TO_END

ANSWER_BEGAN = """() => [...document.querySelectorAll('#chat [data-testid="bot"]')]
  .some(bot => /\\w/.test(bot.innerText) && !bot.innerText.includes('Looking'))"""


@either_width
def test_uploaded_geotiff_gets_a_streamed_answer(
    page: Page,
    lakeside: Path,
    paced_answers: PacedAnswers,
    monkeypatch,
    keep: Callable[..., None],
):
    monkeypatch.setattr("earthvlm.ui.tabs.streaming.SECONDS_BETWEEN_UPDATES", 0)
    open_file(page, lakeside)
    details = page.locator("#scene-details").inner_text()
    assert "128 × 96 pixels" in details and "12 of 12" in details
    assert re.search(r"Water\s+3[78]", details), details

    page.get_by_label("Your question").fill("Which land cover dominates?")
    page.get_by_role("button", name="Send").click()
    questions(page).wait_for(state="attached")
    assert page.locator("#picture img").is_visible()  # nothing goes away meanwhile
    wait_until_looking(page)
    for pieces in (1, 2, 3):
        paced_answers.let(1)
        answers(page).filter(has_text=paced_answers.wait_until_said(pieces)).wait_for()
        assert len(paced_answers.said) == pieces
    keep("upload")
    assert page.get_by_label("Your question").input_value() == ""
    paced_answers.let()
    wait_until_idle(page)
    assert read_message(answers(page)) == "".join(paced_answers.said).strip()
    assert len(paced_answers.said) > 3


@either_width
def test_conversation_is_copied_saved_and_cleared(page: Page, keep: Callable[..., None]):
    page.locator("#save").click()
    assert "no conversation yet" in read_warning(page)
    first = ask(page, "Is there water?")
    page.get_by_label("Copy message").last.click()
    page.wait_for_function(
        "answer => navigator.clipboard.readText().then(text => text.trim() === answer)", arg=first
    )
    page.get_by_role("button", name="Which land cover dominates?").click()
    answers(page).nth(1).wait_for()
    wait_until_idle(page)
    second = read_message(answers(page).nth(1))

    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "conversation.md"
    text = Path(download.value.path()).read_text("utf-8")
    for said in ("Is there water?", first, "Which land cover dominates?", second):
        assert f"> {said}" in text
    assert "Measured from the bands, without the model" in text and "MNDWI" in text
    keep("conversation")

    page.get_by_role("button", name="Delete").click()
    wait_for_count(answers(page), 0)
    assert questions(page).count() == 0
    assert ask(page, "Is there water?") == first  # as if nothing had been said


@either_width
def test_stop_retry_and_edit(page: Page, paced_answers: PacedAnswers, keep: Callable[..., None]):
    def let_it_be_answered() -> None:
        wait_until_looking(page)
        paced_answers.let()
        wait_until_idle(page)
        wait_for_count(questions(page), 1)
        wait_for_count(answers(page), 1)

    page.get_by_label("Your question").fill("Which land cover dominates?")
    page.get_by_label("Your question").press("Enter")
    wait_until_looking(page)
    paced_answers.let(3)
    page.wait_for_function(ANSWER_BEGAN)
    page.get_by_role("button", name="Stop").click()
    wait_until_idle(page)
    said = read_message(answers(page).last)
    assert 0 < len(paced_answers.said) <= 3
    assert said and "".join(paced_answers.said).startswith(said)
    keep("stopped")

    page.get_by_label("Retry").last.click()
    let_it_be_answered()
    assert len(read_message(answers(page).last)) > len(said)
    page.get_by_label("Edit").first.click()
    page.locator("#chat textarea").fill("Is there water?")
    page.get_by_label("Submit").click()
    let_it_be_answered()
    asked, temperatures = zip(*paced_answers.asked, strict=True)
    first = "Which land cover dominates?"
    assert asked == (first, first, "Is there water?")
    assert temperatures[1] > temperatures[0]  # the same words again would help nobody
    assert questions(page).inner_text().strip() == asked[2]
    keep("edited")


@pytest.mark.one_setting
@pytest.mark.parametrize("first", ["typed", "suggested"])
def test_next_question_waits_for_the_answer(first, page: Page, paced_answers: PacedAnswers):
    box = page.get_by_label("Your question")
    suggestion = page.get_by_role("button", name="Which land cover dominates?")
    if first == "typed":
        box.fill("Is there water?")
        box.press("Enter")
    else:
        page.get_by_role("button", name="Is there water?").click()
    wait_until_looking(page)
    for pieces in (0, 1):  # before the first word, and after it
        paced_answers.let(pieces)
        paced_answers.wait_until_said(pieces)
        box.fill("And fields?")
        box.press("Enter")
        if first == "typed":
            suggestion.click()
        assert "still being answered: wait for that, or press Stop" in read_warning(page)
        assert box.input_value() == "And fields?"
        assert page.locator("#stop").is_visible() and not page.locator("#send").is_visible()
    paced_answers.let()
    wait_until_idle(page)
    assert questions(page).inner_text().strip() == "Is there water?"
    assert read_message(answers(page)) == "".join(paced_answers.said).strip()
    box.press("Enter")
    wait_until_looking(page)
    paced_answers.let()
    wait_until_idle(page)
    asked, _ = zip(*paced_answers.asked, strict=True)
    assert asked == ("Is there water?", "And fields?") and box.input_value() == ""


@either_width
def test_opening_an_example_clears_the_conversation(page: Page, paced_answers: PacedAnswers):
    examples = page.locator("#examples .thumbnail-item")
    for example in examples.all():
        sentence = example.inner_text().strip()
        assert re.fullmatch(r"\w.*\w[\s%]*\.", sentence, re.DOTALL), sentence
        assert example.get_attribute("aria-label").strip() == sentence  # for who hears the page

    page.get_by_role("button", name="Describe this scene.").click()
    wait_until_looking(page)
    paced_answers.let(3)
    answers(page).first.wait_for()
    open_example(page, 1)
    wait_until_idle(page)
    wait_for_count(answers(page), 0)
    assert len(paced_answers.said) <= 3  # the model is free
    page.get_by_role("button", name="Is there water?").click()
    wait_until_looking(page)
    paced_answers.let()
    wait_until_idle(page)
    wait_for_count(answers(page), 1)


@either_width
def test_link_opens_its_scene_and_asks_its_question(
    tab: Page, app_url: str, app_index, keep: Callable[..., None]
):
    name = app_index.browse(app_index.splits[-1])[0].image_id
    link = f"{app_url}?scene={name}&q=Is+there+water%3F"
    tab.goto(link)
    tab.locator("#scene-details strong", has_text=name).wait_for()
    answers(tab).first.wait_for()
    wait_until_idle(tab)
    assert questions(tab).inner_text().strip() == "Is there water?"
    tab.get_by_role("button", name="Copy a link").click()
    tab.locator(".tool.done").wait_for()
    assert pasted(tab) == link
    keep("link")

    tab.goto(f"{app_url}?scene=%3Cimg%20src=x%3E&q=Is+there+water%3F")
    assert "no scene" in read_warning(tab).lower()
    tab.locator("#picture img.scene").wait_for()
    assert questions(tab).count() == 0  # it was not asked about another scene


@either_width
def test_picture_bands_and_download(page: Page, keep: Callable[..., None]):
    picture = page.locator("#picture img")
    pictures = {picture.get_attribute("src")}
    for name in ("near infrared", "short-wave infrared", "NDVI"):
        page.locator("#composite").get_by_label(name, exact=True).dispatch_event("click")
        page.locator(f'#picture img[alt$="{name}"]').wait_for()
        pictures.add(picture.get_attribute("src"))
    assert len(pictures) == 4
    page.locator("#picture .legend").wait_for()
    with page.expect_download() as download:
        page.get_by_label("Download the picture").click()
    shown = picture.get_attribute("src")
    assert Path(download.value.path()).read_bytes() == base64.b64decode(shown.split(",")[1])
    assert download.value.suggested_filename.endswith(".png")


@either_width
def test_viewer_zooms_reads_pixels_and_draws_any_bands(page: Page, keep: Callable[..., None]):
    viewport = page.locator("#picture .viewport")

    def zoom() -> float:
        page.wait_for_function("!document.querySelector('.leaflet-zoom-anim')")
        return float(viewport.get_attribute("data-zoom"))

    whole = zoom()
    page.get_by_role("button", name="Zoom in").click()
    page.locator("#picture .viewport.zoomed").wait_for()
    assert zoom() == pytest.approx(whole + 0.7, abs=0.01)
    smooth = "image => getComputedStyle(image).imageRendering"
    assert page.locator("#picture img.scene").evaluate(smooth) == "pixelated"
    viewport.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    profile = page.locator("#picture .profile")
    profile.locator("li", has_text=re.compile(r"N, .*B01 0\.\d+.*B12 0\.\d+")).wait_for()
    assert profile.locator("circle").count() == 12
    readout = page.locator("#picture .readout")
    readout.filter(has_text=re.compile(r"\d° N, [\d.]+° E .* B04 0\.\d{3}")).wait_for()
    keep("profile")
    page.get_by_role("button", name="Remove the spectral profiles").click()
    viewport.focus()
    page.keyboard.press("0")
    page.locator("#picture .viewport:not(.zoomed)").wait_for()
    page.wait_for_function(
        "whole => Math.abs(document.querySelector('.viewport').dataset.zoom - whole) < 0.02",
        arg=whole,
    )

    page.locator("#picture .choose-bands summary").click()
    chooser = page.locator("#picture")
    chooser.get_by_label("Red", exact=True).select_option("B11")
    page.locator('#picture img.scene[alt$="B11 B03 B02"]').wait_for()
    assert page.locator("#composite input:checked").count() == 0
    plain = page.locator("#picture img.scene").get_attribute("src")
    chooser.get_by_label("Stretch", exact=True).select_option("high contrast")
    page.wait_for_function(
        "plain => document.querySelector('#picture img.scene').src !== plain", arg=plain
    )
    chooser.get_by_label("Green", exact=True).select_option("B8A")
    page.locator('#picture img.scene[alt$="B11 B8A B02"]').wait_for()
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function(
        """() => document.querySelector('#picture .viewport').clientWidth > innerWidth - 40"""
    )
    keep("full-screen", full_page=False)


@either_width
def test_attention_map_is_shown_until_the_next_answer(page: Page, keep: Callable[..., None]):
    page.locator("#attention").click()
    assert "no answer yet" in read_warning(page)
    answer = ask(page, "Is there water?")
    page.locator("#attention").click()
    words = page.locator("#picture .word")
    words.first.wait_for()
    assert [w.inner_text() for w in words.all()][1:-1] == answer.split()

    def overlay() -> str:
        return page.locator("#picture img.attention").get_attribute("src")

    whole = overlay()
    words.nth(1).click()
    assert words.nth(1).get_attribute("aria-pressed") == "true"
    assert overlay() != whole
    keep("looked")
    page.get_by_role("button", name="Hide").click()
    page.locator("#picture img.attention").wait_for(state="detached")
    page.get_by_role("button", name="Whole answer").click()
    assert overlay() == whole
    page.locator("#composite").get_by_label("NDVI", exact=True).dispatch_event("click")
    wait_for_count(words, 0)  # it belonged to what was seen before
    page.locator("#attention").click()
    words.first.wait_for()
    assert ask(page, "Which land cover dominates?")  # the model answers as before
    wait_for_count(words, 0)  # they were another answer's


def test_empty_and_long_questions_are_explained(page: Page):
    for question, reason in ((" ", "empty"), ("water? " * 14_286, "2,000")):
        page.get_by_label("Your question").fill(question)
        page.get_by_role("button", name="Send").click()
        assert reason in read_warning(page)
        assert answers(page).count() == 0
    assert ask(page, "Is there water?")
