"""A saved bridge published on the Hub with its card, once or while it trains."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from earthvlm.bridge.base_models import name_base_models
from earthvlm.bridge.config import (
    CONFIG_FILE,
    CURVE_FILE,
    LOG_FILE,
    OWNED_FILES,
    PUBLISHED_FILES,
    BridgeConfig,
    bridge_revision,
    check_parts,
    list_parts,
    sample_picture,
)
from earthvlm.bridge.model_card import read_last_samples, write_bridge_card
from earthvlm.bridge.serialization import name_adapter_base
from earthvlm.storage.hub import check_push, push


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
    vlm_model: str | None = None,
    olmoearth_model: str | None = None,
) -> str:
    """Push a saved bridge, its log, its curve and its card in one commit; return its address.

    Files of an earlier push that this bridge does not have are deleted in the same commit.
    private: see `push`. results: of `read_results`, for the card. notes: Markdown for the card.
    vlm_model, olmoearth_model: see `name_base_models`.

    Raises FileNotFoundError or ValueError where the folder is no bridge, ValueError where nobody
    could load what would be published or the caller may not write there, ConnectionError where the
    Hub cannot be reached. Nothing is uploaded then.
    """
    config = BridgeConfig.read(folder)
    check_parts(folder, config)
    config = name_base_models(config, vlm_model, olmoearth_model, token)
    with tempfile.TemporaryDirectory(prefix="earthvlm-") as temporary:
        copy = Path(temporary)
        _copy(folder, copy, config)
        config.write(copy)
        if config.use_lora:
            name_adapter_base(copy, config)
        if results is not None and results["bridge"] == bridge_revision(folder):
            # A revision covers the names of models, which are others where they were given here.
            results = results | {"bridge": bridge_revision(copy)}
        write_bridge_card(copy, repo_id, results, notes)
        return push(
            copy,
            repo_id,
            PUBLISHED_FILES,
            commit_message=commit_message,
            owned=OWNED_FILES,
            private=private,
            revision=revision,
            create_pr=create_pr,
            token=token,
        )


def on_main_process(check: Callable[[], None]) -> None:
    """Call a check in the main process alone. Where it raises ValueError, every process does."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    refusal = [None]
    if PartialState().is_main_process:
        try:
            check()
        except ValueError as error:
            refusal = [str(error)]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise ValueError(refusal[0])


class TrainingPublisher:
    """Publishes the checkpoints of a run in the background, where errors are reported, not raised.

    private: see `push`. report: takes the sentences that people should read.
    """

    def __init__(self, repo_id: str, private: bool | None, report: Callable[[str], None]) -> None:
        self.repo_id, self.private, self.report = repo_id, private, report
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="earthvlm-publish")
        self.last: Future[None] | None = None

    def check(self, config: BridgeConfig) -> None:
        """Refuse, before hours of training, what could not be published after them.

        The repository is made where there is none. A Hub that does not answer is reported, because
        it may answer later.

        Raises ValueError where nobody could load the bridge, the repository is not `private` as
        asked, or the caller may not write there.
        """
        name_base_models(config)
        try:
            check_push(self.repo_id, private=self.private)
        except ConnectionError as error:
            self.report(f"{error} Training starts, and tries again to publish later.")

    def publish_soon(self, folder: Path, step: int) -> None:
        """Publish a checkpoint unless the one before is still on its way."""
        if self.last is not None and not self.last.done():
            return
        # The checkpoint may be removed while it is published.
        copy = Path(tempfile.mkdtemp(prefix="earthvlm-"))
        try:
            _copy(folder, copy, BridgeConfig.read(folder))
        except OSError as error:  # there may be no room for it
            shutil.rmtree(copy, ignore_errors=True)
            self.report(f"Not published: {error}")
            return
        self.last = self.pool.submit(self._publish_copy, copy, f"Train to step {step}")

    def finish(self, folder: Path) -> None:
        """Wait for what is on its way, then publish the trained bridge."""
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
        except Exception as error:  # whatever it is, training goes on
            self.report(f"Not published: {error}")
            return False
        self.report(f"Published: {address}")
        return True


def _copy(folder: Path, target: Path, config: BridgeConfig) -> None:
    """Copy what is published of a bridge, and nothing that another run left in its folder."""
    files = [folder / name for name in (CONFIG_FILE, *list_parts(config), LOG_FILE, CURVE_FILE)]
    files += [sample_picture(folder, sample["image"]) for sample in read_last_samples(folder)]
    for path in files:
        if path.is_file():
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
