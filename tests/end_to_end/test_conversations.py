"""Conversations in a browser: several, their list, the history of the browser, and the address."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlparse

from tests.end_to_end.conftest import END_TO_END, either_width
from tests.end_to_end.visitor import answers, ask, open_example, questions, wait_for_count

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = END_TO_END


def read_address(page: Page) -> tuple[str, str]:
    """Return the scene and the question of the page's address."""
    query = parse_qs(urlparse(page.url).query)
    return query.get("scene", [""])[0], query.get("q", [""])[0]


def wait_for_address(page: Page, scene: str, question: str) -> None:
    page.wait_for_function(
        """([scene, question]) => {
             const address = new URL(location.href).searchParams;
             return address.get('scene') === scene && (address.get('q') ?? '') === question;
           }""",
        arg=[scene, question],
    )


@either_width
def test_conversations_are_kept_listed_and_navigated(page: Page):
    page.evaluate("localStorage.clear()")
    choice = page.get_by_label("Conversation", exact=True)
    ask(page, "Is there snow?")
    scene, question = read_address(page)
    assert scene and question == "Is there snow?"
    assert "Is there snow?" not in page.locator(".questions").inner_text()

    page.get_by_role("button", name="New", exact=True).click()
    wait_for_count(answers(page), 0)
    wait_for_address(page, scene, "")
    second = ask(page, "Which land cover dominates?")
    open_example(page, 1)
    wait_for_count(answers(page), 0)
    other, question = read_address(page)
    assert other not in ("", scene) and question == ""

    page.go_back()
    wait_for_address(page, scene, "Which land cover dominates?")
    wait_for_count(answers(page), 1)
    assert second in answers(page).inner_text()
    assert scene in page.locator("#scene-details strong").inner_text()
    page.go_back()
    questions(page).filter(has_text="Is there snow?").wait_for()
    page.go_forward()
    questions(page).filter(has_text="Which land cover").wait_for()

    assert choice.locator("option").count() == 2
    page.reload()
    questions(page).filter(has_text="Which land cover").wait_for()
    first = choice.locator("option", has_text="Is there snow?").get_attribute("value")
    choice.select_option(first)
    questions(page).filter(has_text="Is there snow?").wait_for()
    wait_for_address(page, scene, "Is there snow?")

    page.get_by_role("button", name="Delete").click()
    wait_for_count(answers(page), 0)
    choice.locator("option", has_text="Is there snow?").wait_for(state="detached")
    assert page.evaluate("Object.keys(localStorage).length") == 1
