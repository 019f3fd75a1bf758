"""Download files of a Hub repository, and give up when they no longer move.

A program that `earthvlm.storage.hub_fetch` runs in a process of its own, because the Hub's client
has no limit for all of a download: it repeats requests for minutes, Xet's part of it is not Python,
and some of its requests have no timeout. A process can be ended whatever it waits for, and ends its
locks with it. Reads one JSON object from standard input and writes one to standard output; ends
with the process that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
from huggingface_hub import constants, set_client_factory, snapshot_download
from huggingface_hub.utils import tqdm
from huggingface_hub.utils._http import default_client_factory

from earthvlm.storage.hub_errors import find_answer, plain_errors

# What the client waits for before it counts bytes as arrived: little, as slow files are not to be
# taken for files that do not move. 10 MB by default.
CHUNK_SIZE = 16 * 1024
LOOK_SECONDS = 0.1
LISTS, MOVES = "lists", "moves"


class Watch:
    """When something last arrived, and what the Hub last refused.

    answer_seconds: for each answer until the files are listed.
    stall_seconds: for the next byte of any file.
    """

    def __init__(self, answer_seconds: float, stall_seconds: float) -> None:
        self.limits = {LISTS: answer_seconds, MOVES: stall_seconds}
        self.stage = LISTS
        self.status: int | None = None
        self.moved_at = time.monotonic()

    @property
    def limit(self) -> float:
        """Seconds that the present stage may take without progress."""
        return self.limits[self.stage]

    @property
    def is_stalled(self) -> bool:
        """Whether the last progress was longer ago than the limit."""
        return time.monotonic() - self.moved_at > self.limit

    def move(self) -> None:
        """Note progress now."""
        self.moved_at = time.monotonic()

    def note_answer(self, response: httpx2.Response) -> None:
        """Take an answer for progress while the files are listed, but not a refusal."""
        if "/api/agent-harnesses" in str(response.url):  # the client's statistics
            return
        if response.status_code >= 400:
            self.status = response.status_code
        elif self.stage == LISTS:
            self.move()

    def make_client(self) -> httpx2.Client:
        """The client's own kind, with a limit for the requests that it makes without one."""
        client = default_client_factory()
        client.timeout = httpx2.Timeout(self.limits[MOVES])
        client.event_hooks["response"].append(self.note_answer)
        return client

    def make_progress_bar(self) -> type:
        """The client's progress bar, which it makes once files are listed and moves with bytes."""
        watch = self

        class WatchedBar(tqdm):
            def __init__(self, *args: Any, **options: Any) -> None:
                if watch.stage == LISTS:
                    watch.stage, watch.status = MOVES, None
                    watch.move()
                super().__init__(*args, **options)

            def update(self, n: float | None = 1) -> bool | None:
                if n:
                    watch.move()
                return super().update(n)

        return WatchedBar


def main() -> None:
    """Download what the request on standard input names, and print where it is."""
    asked = json.loads(sys.stdin.readline())
    watch = Watch(asked.pop("answer_seconds"), asked.pop("stall_seconds"))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(target=_end_when_stalled, args=(watch, asked["repo_id"]), daemon=True).start()
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_SIZE
    set_client_factory(watch.make_client)
    _finish(**_download(asked, watch))


def _download(asked: dict[str, Any], watch: Watch) -> dict[str, Any]:
    """The folder of the files, or what went wrong: its kind and one sentence."""
    try:
        with plain_errors(asked["repo_id"], asked["revision"]):
            return {"folder": snapshot_download(**asked, tqdm_class=watch.make_progress_bar())}
    except ConnectionError as error:
        sentence = str(error)
        if watch.stage == MOVES:
            status, reason = find_answer(error)
            ended = f"answered {status}" if status else f"failed ({reason})"
            sentence = f"The Hub's storage of {asked['repo_id']} {ended}: try again later."
        return {"error": "ConnectionError", "sentence": sentence}
    except ValueError as error:
        return {"error": "ValueError", "sentence": str(error)}
    except OSError as error:
        return {"error": "OSError", "sentence": f"{asked['repo_id']} was not saved: {error}"}


def _end_with_parent() -> None:
    sys.stdin.read()
    _remove_parts()
    os._exit(1)


def _end_when_stalled(watch: Watch, name: str) -> None:
    while not watch.is_stalled:
        time.sleep(LOOK_SECONDS)
    refused = f"; its last answer was {watch.status}" if watch.status else ""
    if watch.stage == LISTS:
        sentence = f"The Hub did not list {name} within {watch.limit:g} seconds{refused}"
    else:
        sentence = (
            f"The files of {name} do not arrive: the Hub's storage sent nothing for "
            f"{watch.limit:g} seconds{refused}"
        )
    _finish(error="ConnectionError", sentence=f"{sentence}. Try again later.")


def _finish(**result: str) -> None:
    """Report and end at once; threads of the client may wait for long."""
    _remove_parts()
    print(json.dumps(result), flush=True)
    sys.stderr.flush()
    os._exit(0)


def _remove_parts() -> None:
    """Remove what arrived of unfinished files, which the client never uses again."""
    with suppress(psutil.Error):
        for file in psutil.Process().open_files():
            if file.path.endswith(".incomplete"):
                Path(file.path).unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
