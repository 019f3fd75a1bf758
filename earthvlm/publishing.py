"""A saved bridge published on the Hub with its card, once or while it trains."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from earthvlm.bridge_config import PUBLISHED_FILES, BridgeConfig, check_parts
from earthvlm.card import write_bridge_card
from earthvlm.hub import push


def publish_bridge(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Add the bridge",
    create_pr: bool = False,
    token: str | None = None,
    results: dict | None = None,
    notes: str = "",
) -> str:
    """Push a saved bridge, its log, its curve and its card in one commit; return its address.

    results: what `earthvlm evaluate --output` wrote of it, for the card. notes: Markdown for it.
    Raises FileNotFoundError or ValueError where the folder is no bridge, ValueError where the
    caller may not write there, ConnectionError where the Hub cannot be reached.
    """
    check_parts(folder, BridgeConfig.read(folder))
    with tempfile.TemporaryDirectory(prefix="earthvlm-") as temporary:
        _copy(folder, Path(temporary))
        write_bridge_card(Path(temporary), repo_id, results, notes)
        return push(
            Path(temporary),
            repo_id,
            PUBLISHED_FILES,
            commit_message=commit_message,
            private=private,
            revision=revision,
            create_pr=create_pr,
            token=token,
        )


class TrainingPublisher:
    """Publishes the checkpoints of a run in the background. What fails is reported, never raised.

    report: takes the sentences that people should read.
    """

    def __init__(self, repo_id: str, private: bool, report: Callable[[str], None]) -> None:
        self.repo_id, self.private, self.report = repo_id, private, report
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="earthvlm-publish")
        self.last: Future[None] | None = None

    def publish_soon(self, folder: Path, step: int) -> None:
        """Publish a checkpoint unless the one before is still on its way."""
        if self.last is not None and not self.last.done():
            return
        # The checkpoint may be removed while it is published.
        copy = Path(tempfile.mkdtemp(prefix="earthvlm-"))
        try:
            _copy(folder, copy)
        except OSError as error:  # there may be no room for it
            shutil.rmtree(copy, ignore_errors=True)
            self.report(f"Not published: {error}")
            return
        self.last = self.pool.submit(self._publish_copy, copy, f"Train to step {step}")

    def finish(self, folder: Path) -> None:
        """Wait for what is on its way, then publish the trained bridge."""
        self.pool.shutdown()
        if not self._publish(folder, "Add the trained bridge"):
            private = " --private" if self.private else ""
            self.report(
                f"The trained bridge is in {folder}; this publishes it: "
                f"earthvlm push {folder} {self.repo_id}{private}"
            )

    def _publish_copy(self, copy: Path, message: str) -> None:
        try:
            self._publish(copy, message)
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _publish(self, folder: Path, message: str) -> bool:
        try:
            address = publish_bridge(
                folder, self.repo_id, private=self.private, commit_message=message
            )
        except Exception as error:  # whatever it is, training goes on
            self.report(f"Not published: {error}")
            return False
        self.report(f"Published: {address}")
        return True


def _copy(folder: Path, target: Path) -> None:
    for pattern in PUBLISHED_FILES:
        for path in folder.glob(pattern):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
