"""What a visitor does in the page. Each step waits for its result, not for a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

TWO_FRAMES = "() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


def read_message(message: Locator) -> str:
    """Return what a message says, without what was measured, which stands below an answer."""
    return message.evaluate(
        """message => {
             const copy = message.cloneNode(true);
             copy.querySelectorAll('.compared').forEach(part => part.remove());
             document.body.append(copy);  // only what is drawn has its line breaks
             const text = copy.innerText.trim();
             copy.remove();
             return text;
           }"""
    )


def answers(page: Page) -> Locator:
    return page.locator('#chat [data-testid="bot"]')


def questions(page: Page) -> Locator:
    return page.locator('#chat [data-testid="user"]')


def wait_until_idle(page: Page) -> None:
    page.locator("#stop").wait_for(state="hidden")
    page.locator("#send").wait_for()


def ask(page: Page, question: str) -> str:
    """Ask, wait for the end of the answer and return it."""
    before = answers(page).count()
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Send").click()
    # The sign of waiting can be drawn a moment before the buttons change.
    said = {"has_text": re.compile(r"\S"), "has_not_text": "Looking at the scene"}
    answers(page).nth(before).filter(**said).wait_for()
    wait_until_idle(page)
    return read_message(answers(page).last)


def wait_until_looking(page: Page) -> None:
    """Wait until a question was taken and nothing is answered yet."""
    page.locator("#chat", has_text="Looking at the scene").wait_for()
    page.locator("#stop").wait_for()


def open_example(page: Page, place: int) -> None:
    """Open one of the example scenes, which is another than the one that is open."""
    before = page.locator("#scene-details strong").inner_text()
    page.locator("#examples .thumbnail-item").nth(place).click()
    page.locator("#scene-details strong").filter(has_not_text=before).wait_for()


def pasted(page: Page) -> str:
    return page.evaluate("navigator.clipboard.readText()")


def upload(page: Page, *paths: Path) -> None:
    page.locator("#upload input[type=file]").set_input_files(list(paths))


def open_file(page: Page, path: Path) -> None:
    upload(page, path)
    page.locator("#scene-details strong", has_text=path.stem).wait_for()


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.get_by_role("tab", name=name, selected=True).wait_for()
    page.evaluate(TWO_FRAMES)  # see open_filters


def open_filters(page: Page) -> None:
    """Unfold the search's filters, ready to be typed into.

    Gradio draws them then, and a frame later sets them to what they held; what a program types
    between the two would be lost.
    """
    page.locator("#filters button.label-wrap").click()
    page.get_by_label("Taken from").wait_for()
    page.evaluate(TWO_FRAMES)


def wait_for_count(found: Locator, count: int) -> None:
    """Wait until exactly `count` elements are there."""
    if count:
        found.nth(count - 1).wait_for()
    found.nth(count).wait_for(state="detached")


def read_details(page: Page) -> str:
    """Return the details without the seconds that Gradio counts over them while it waits."""
    return re.sub(r"^[\d./]+s\n", "", page.locator("#scene-details").inner_text())


def read_warning(page: Page) -> str:
    """Return the notice that is shown, one plain sentence, and close it."""
    notice = page.locator(".notice")
    notice.wait_for()
    sentence = notice.locator("p").inner_text().strip()
    assert re.fullmatch(r"[^\n]*\w[^\n]*\.", sentence)
    assert "Traceback" not in sentence
    notice.get_by_role("button").click()
    notice.wait_for(state="detached")
    return sentence


def read_violations(page: Page, scheme: str) -> list[tuple]:
    """Return the rules of axe-core that the page breaks seriously, each with its elements.

    Targets are of WCAG 2.5.8's size, which axe leaves out unless it is asked. In the dark scheme,
    which changes only colours, the contrast alone is checked.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    sizes = {"rules": {"target-size": {"enabled": True}}}
    options = {"runOnly": ["color-contrast"]} if scheme == "dark" else sizes
    # To name the elements of the rules that hold would take longer than the rules.
    options["resultTypes"] = ["violations"]
    found = axe.run(page, options=options).response["violations"]
    return [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
