"""Markup that people, files and models write is shown as text and makes no element."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.end_to_end.conftest import END_TO_END
from tests.end_to_end.visitor import (
    answers,
    open_filters,
    open_tab,
    pasted,
    questions,
    read_warning,
    wait_until_idle,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = END_TO_END

COVER = (
    '<div id="planted" style="position:fixed;inset:0;z-index:99999;background:#fff">Signed out. '
    '<a href="https://evil.example">Sign in</a></div><img id=planted src=x><planted>'
)
PLAIN = "a\n    < b & **c** &lt; <b>d</b>\n$$e$$ `f` [g](https://evil.example) <!-- h -->"


def count_planted(page: Page) -> int:
    """Count the elements that a text brought into the page."""
    return page.evaluate(
        """() => document.querySelectorAll(
          '#planted, planted, a[href*="evil.example"], #chat .message b, .katex').length"""
    )


def answer_with(monkeypatch: pytest.MonkeyPatch, bridge, text: str) -> None:
    """Let the model answer with a text, in pieces."""
    monkeypatch.setattr(bridge, "stream", lambda *_, stop: iter(text.split("|")))


def test_question_of_a_link_is_shown_as_text(tab: Page, app_url: str, app_bridge, monkeypatch):
    text = f"{PLAIN} {COVER}"
    answer_with(monkeypatch, app_bridge, text)
    tab.goto(f"{app_url}?q={quote(text)}")
    answers(tab).first.wait_for()
    wait_until_idle(tab)
    for shown in (questions(tab), answers(tab)):
        assert shown.first.inner_text().strip() == text
        assert shown.first.get_attribute("aria-label").endswith(f" message: {text}")
    for number in range(2):
        tab.evaluate("navigator.clipboard.writeText('')")
        tab.get_by_label("Copy message").nth(number).click()
        tab.wait_for_function("async () => await navigator.clipboard.readText()")
        tab.evaluate("() => new Promise((done) => setTimeout(done, 100))")
        assert pasted(tab) == text
    assert count_planted(tab) == 0


def test_edited_question_is_shown_as_text(page: Page, app_bridge, monkeypatch: pytest.MonkeyPatch):
    answer_with(monkeypatch, app_bridge, "Fine.")
    page.get_by_label("Your question").fill(PLAIN)
    page.get_by_role("button", name="Send").click()
    answers(page).first.wait_for()
    wait_until_idle(page)
    page.get_by_label("Edit").first.click()
    box = page.locator("#chat textarea")
    box.fill(f"{box.input_value()} {COVER}")
    page.get_by_label("Submit").click()
    # Until the server answers, Gradio shows the text as HTML to the visitor who typed it.
    questions(page).filter(has_text='<div id="planted"').wait_for()
    wait_until_idle(page)
    assert questions(page).first.inner_text().strip() == f"{PLAIN} {COVER}"
    assert count_planted(page) == 0
    with page.expect_download() as download:
        page.locator("#save").click()
    saved = Path(download.value.path()).read_text("utf-8")
    assert "Signed out" in saved and "<div" not in saved.replace(r"\<", "")


def test_search_and_compare_show_markup_as_text(page: Page, app_bridge, monkeypatch, lakeside):
    """Words, sources and errors of a search, and descriptions of two scenes."""
    open_tab(page, "Search")
    page.get_by_label("What the scene shows").fill(COVER)
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator("#search-summary", has_text="Signed out.").wait_for()
    open_filters(page)
    page.get_by_label("Words in the name of the source").fill("<img id=planted src=x>")
    page.get_by_role("button", name="Apply filters").click()
    assert "<img id=planted" in read_warning(page)
    page.get_by_label("Words in the name of the source").fill("")
    page.get_by_label("Taken from").fill("<img id=planted src=x>")
    page.get_by_role("button", name="Apply filters").click()
    assert "<img id=planted" in read_warning(page)
    assert count_planted(page) == 0

    answer_with(monkeypatch, app_bridge, COVER)
    open_tab(page, "Compare")
    with page.expect_file_chooser() as chooser:
        page.locator("#upload-one").click()
    chooser.value.set_files([lakeside])
    page.locator("#pair .port img").nth(1).wait_for()
    page.locator("#describe-pair").click()
    page.locator("#later-description", has_text="Signed out.").wait_for()
    assert page.locator("#later-description p").first.inner_text() == f"model {COVER}"
    assert count_planted(page) == 0


def test_scene_name_of_a_link_is_shown_as_text(tab: Page, app_url: str):
    tab.goto(f"{app_url}?scene={quote(COVER[:70])}")
    assert "no scene '<div id=" in read_warning(tab)
    assert count_planted(tab) == 0
