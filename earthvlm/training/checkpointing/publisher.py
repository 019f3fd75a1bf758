"""Publishing of a bridge on the Hub while it trains."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from earthvlm.bridge.base_models import name_base_models
from earthvlm.bridge.config import BridgeConfig
from earthvlm.bridge.hub.publish import copy_published_files, publish_bridge
from earthvlm.storage.hub import check_push


class TrainingPublisher:
    """Publishes the checkpoints of a run in the background; reports errors and never raises them.

    private: see `push`. report: receives the sentences for the user.
    """

    def __init__(self, repo_id: str, private: bool | None, report: Callable[[str], None]) -> None:
        self.repo_id, self.private, self.report = repo_id, private, report
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="earthvlm-publish")
        self.last: Future[None] | None = None

    def check(self, config: BridgeConfig) -> None:
        """Check, before hours of training, that the bridge can be published after them.

        Creates the repository if it does not exist. A Hub that does not answer is only reported,
        because it may answer later.

        Raises ValueError if nobody could load the published bridge, if the repository's visibility
        is not the requested one, or if the caller may not write there.
        """
        name_base_models(config)
        try:
            check_push(self.repo_id, private=self.private)
        except ConnectionError as error:
            self.report(f"{error} Training starts, and tries again to publish later.")

    def publish_soon(self, folder: Path, step: int) -> None:
        """Publish a checkpoint in the background, unless the previous one is still uploading."""
        if self.last is not None and not self.last.done():
            return
        # Later checkpoints may remove this one during the upload.
        copy = Path(tempfile.mkdtemp(prefix="earthvlm-"))
        try:
            copy_published_files(folder, copy, BridgeConfig.read(folder))
        except OSError as error:  # such as a full disk
            shutil.rmtree(copy, ignore_errors=True)
            self.report(f"Not published: {error}")
            return
        self.last = self.pool.submit(self._publish_copy, copy, f"Train to step {step}")

    def finish(self, folder: Path) -> None:
        """Wait for the upload that is running, then publish the trained bridge."""
        self.pool.shutdown()
        if not self._publish(folder, "Add the trained bridge"):
            private = {True: " --private", False: " --public", None: ""}[self.private]
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
        except Exception as error:  # no fault of publishing may end the training
            self.report(f"Not published: {error}")
            return False
        self.report(f"Published: {address}")
        return True
