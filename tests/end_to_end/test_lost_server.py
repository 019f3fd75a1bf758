"""No conversation is lost when the server is killed during an answer and started again."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from tests.end_to_end.conftest import END_TO_END
from tests.end_to_end.visitor import (
    answers,
    ask,
    open_file,
    questions,
    read_message,
    read_warning,
    wait_for_count,
    wait_until_idle,
    wait_until_looking,
)
from tests.support.forked_programs import ForkedProgram
from tests.support.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = END_TO_END
START_SECONDS = 300  # on a machine with other work to do
# Stores a conversation, and names it in the entry of the browser's history.
STORE = """text => {
  localStorage.setItem('earthvlm.talk.' + '0'.repeat(16), text);
  history.replaceState({talk: '0'.repeat(16)}, '');
}"""


@dataclass
class AppProcess:
    """`python app.py` on a port of its own."""

    port: int
    log: Path
    program: ForkedProgram | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        asked = {"GRADIO_SERVER_PORT": str(self.port), "GRADIO_SERVER_NAME": "127.0.0.1"}
        self.program = ForkedProgram("app.py", output=self.log, environment=os.environ | asked)
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.program.is_running and time.monotonic() < deadline, self.log.read_text()
            try:
                requests.get(self.url, timeout=30).raise_for_status()
                return
            except requests.ConnectionError:
                time.sleep(0.1)

    def kill(self) -> None:
        self.program.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppProcess]:
    server = AppProcess(free_port(), tmp_path_factory.mktemp("server") / "log")
    server.start()
    yield server
    server.kill()


def wait_for_question(tab: Page, question: str) -> None:
    """Wait until the box for questions holds a question."""
    typed = "question => document.querySelector('#prompt textarea').value === question"
    tab.wait_for_function(typed, arg=question)


def test_conversation_survives_a_server_restart(tab: Page, server: AppProcess):
    tab.goto(f"{server.url}?scene=beetzsee_r0_c00")
    name = tab.locator("#scene-details strong", has_text="beetzsee_r0_c00")
    name.wait_for()
    first = ask(tab, "Is there water?")
    tab.get_by_label("Your question").fill("Describe this scene.")
    tab.get_by_role("button", name="Send").click()
    tab.locator("#stop").wait_for()
    tab.evaluate("window.isOldPage = true")
    server.kill()
    lost = tab.locator(".notice p").filter(has_text="onnection")
    lost.wait_for()
    assert "\n" not in lost.inner_text().strip()

    server.start()
    tab.wait_for_function("!window.isOldPage")  # the page reloads itself
    tab.locator("#picture img.scene").wait_for()
    wait_for_count(answers(tab), 1)
    wait_until_idle(tab)
    name.wait_for()
    assert questions(tab).inner_text().strip() == "Is there water?"
    assert read_message(answers(tab)) == first
    wait_for_question(tab, "Describe this scene.")
    ask(tab, "Which land cover dominates?")
    wait_for_count(questions(tab), 2)
    wait_for_count(answers(tab), 2)

    tab.get_by_role("button", name="Delete").click()
    wait_for_count(answers(tab), 0)
    tab.wait_for_function(
        "!document.querySelector('#stored [data-talk]').textContent.includes('water')"
    )
    tab.reload()
    tab.locator("#picture img.scene").wait_for()
    name.wait_for()
    assert questions(tab).count() == 0  # cleared messages are not restored


def test_own_file_has_to_be_opened_again(tab: Page, server: AppProcess, lakeside: Path):
    tab.goto(server.url)
    tab.locator("#picture img.scene").wait_for()
    open_file(tab, lakeside)
    tab.get_by_label("Your question").fill("Is there water?")
    tab.get_by_role("button", name="Send").click()
    wait_until_looking(tab)
    tab.reload()
    assert read_warning(tab) == (
        "The file lakeside is no longer open: open it again to ask about it."
    )
    open_file(tab, lakeside)
    assert ask(tab, "Is there water?")


def test_made_up_conversation_is_not_restored(tab: Page, server: AppProcess):
    """One that the seed of the run chooses; test_stored_conversation.py reads many."""
    tab.goto(server.url)
    sly = random.choice(['{"messages": 5}', "<img src=x onerror=alert(1)>", "[" * 9_999])
    tab.evaluate(STORE, sly)
    tab.reload()
    told = read_warning(tab)
    assert told.startswith("The conversation that this browser stored is damaged"), sly
    tab.locator("#picture img.scene").wait_for()
    assert answers(tab).count() == 0, sly
    assert ask(tab, "Is there water?")


def test_restored_markup_stays_text(tab: Page, server: AppProcess):
    tab.goto(server.url)
    talk = {
        "talk": "0" * 16,
        "image_id": "beetzsee_r0_c00",
        "name": "x",
        "question": '<b id="bold">?</b>',
        "messages": [
            {"role": "user", "content": '<div id="cover">a</div>'},
            {"role": "assistant", "content": '<img src="x" id="picture-in" onerror="alert(1)">'},
        ],
    }
    tab.evaluate(STORE, json.dumps(talk))
    tab.reload()
    tab.locator("#scene-details strong", has_text="beetzsee_r0_c00").wait_for()
    wait_for_count(answers(tab), 1)
    assert tab.locator("#cover, #picture-in, #bold").count() == 0
    assert questions(tab).inner_text().strip() == '<div id="cover">a</div>'
    wait_for_question(tab, '<b id="bold">?</b>')
