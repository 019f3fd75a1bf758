"""Download files of a Hub repository, and give up when the transfer stalls.

`earthvlm.storage.hub_fetch` runs this program in a process of its own, because the Hub's client
does not limit how long a download takes: it repeats requests for minutes, Xet is not Python, and
some requests have no timeout. A process can be killed whatever it waits for, and its locks end with
it. It reads one JSON object from standard input, writes one to standard output, and ends when its
parent does.
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

# The client reports progress after this many bytes. Its default of 10 MB would make a slow download
# look stalled.
CHUNK_SIZE = 16 * 1024
POLL_SECONDS = 0.1
LISTING, TRANSFER = "listing", "transfer"


class Watch:
    """Records when data last arrived, and the status of the Hub's last refusal.

    answer_seconds: the time limit of each answer until the files are listed.
    stall_seconds: the time limit of the next byte of any file.
    """

    def __init__(self, answer_seconds: float, stall_seconds: float) -> None:
        self.limits = {LISTING: answer_seconds, TRANSFER: stall_seconds}
        self.stage = LISTING
        self.status: int | None = None
        self.progressed_at = time.monotonic()

    @property
    def limit(self) -> float:
        """Seconds that the present stage may take without progress."""
        return self.limits[self.stage]

    @property
    def is_stalled(self) -> bool:
        """Whether the last progress was longer ago than the limit."""
        return time.monotonic() - self.progressed_at > self.limit

    def note_progress(self) -> None:
        """Note progress now."""
        self.progressed_at = time.monotonic()

    def note_answer(self, response: httpx2.Response) -> None:
        """Count an answer as progress while the files are listed, unless it is a refusal."""
        if "/api/agent-harnesses" in str(response.url):  # the client's statistics
            return
        if response.status_code >= 400:
            self.status = response.status_code
        elif self.stage == LISTING:
            self.note_progress()

    def make_client(self) -> httpx2.Client:
        """Make a client as huggingface_hub does, with a timeout for requests that have none."""
        client = default_client_factory()
        client.timeout = httpx2.Timeout(self.limits[TRANSFER])
        client.event_hooks["response"].append(self.note_answer)
        return client

    def make_progress_bar(self) -> type:
        """Make the progress bar that the client creates after listing and moves with each byte."""
        watch = self

        class WatchedBar(tqdm):
            def __init__(self, *args: Any, **options: Any) -> None:
                if watch.stage == LISTING:
                    watch.stage, watch.status = TRANSFER, None
                    watch.note_progress()
                super().__init__(*args, **options)

            def update(self, n: float | None = 1) -> bool | None:
                if n:
                    watch.note_progress()
                return super().update(n)

        return WatchedBar


def main() -> None:
    """Download what the request on standard input names, and print where it is."""
    request = json.loads(sys.stdin.readline())
    watch = Watch(request.pop("answer_seconds"), request.pop("stall_seconds"))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(
        target=_end_when_stalled, args=(watch, request["repo_id"]), daemon=True
    ).start()
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_SIZE
    set_client_factory(watch.make_client)
    _finish(**_download(request, watch))


def _download(request: dict[str, Any], watch: Watch) -> dict[str, Any]:
    """Return the folder of the files, or an error's type and sentence."""
    try:
        with plain_errors(request["repo_id"], request["revision"]):
            return {"folder": snapshot_download(**request, tqdm_class=watch.make_progress_bar())}
    except ConnectionError as error:
        sentence = str(error)
        if watch.stage == TRANSFER:
            status, reason = find_answer(error)
            ended = f"answered {status}" if status else f"failed ({reason})"
            sentence = f"The Hub's storage of {request['repo_id']} {ended}: try again later."
        return {"error": "ConnectionError", "sentence": sentence}
    except ValueError as error:
        return {"error": "ValueError", "sentence": str(error)}
    except OSError as error:
        return {"error": "OSError", "sentence": f"{request['repo_id']} was not saved: {error}"}


def _end_with_parent() -> None:
    sys.stdin.read()
    _remove_parts()
    os._exit(1)


def _end_when_stalled(watch: Watch, name: str) -> None:
    while not watch.is_stalled:
        time.sleep(POLL_SECONDS)
    refused = f"; its last answer was {watch.status}" if watch.status else ""
    if watch.stage == LISTING:
        sentence = f"The Hub did not list {name} within {watch.limit:g} seconds{refused}"
    else:
        sentence = (
            f"The files of {name} do not arrive: the Hub's storage sent nothing for "
            f"{watch.limit:g} seconds{refused}"
        )
    _finish(error="ConnectionError", sentence=f"{sentence}. Try again later.")


def _finish(**result: str) -> None:
    """Report and end at once; the client's threads may still wait."""
    _remove_parts()
    print(json.dumps(result), flush=True)
    sys.stderr.flush()
    os._exit(0)


def _remove_parts() -> None:
    """Remove partial files, which the client never uses again."""
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
