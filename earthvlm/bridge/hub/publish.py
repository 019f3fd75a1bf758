"""Publishing a saved bridge with its card on the Hub."""

from __future__ import annotations

import shutil
import tempfile
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
from earthvlm.bridge.hub.eval_results import write_eval_results
from earthvlm.bridge.hub.model_card import read_last_samples, write_bridge_card
from earthvlm.bridge.serialization import name_adapter_base
from earthvlm.storage.hub import push


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
    """Push a saved bridge, its log, its curve and its card in one commit; return the address.

    The commit deletes files of an earlier push that this bridge does not have.

    Args:
        folder: of the saved bridge.
        repo_id: of the Hub repository, which is created where it does not exist.
        private: see `push`.
        revision: the branch to push to; the main one by default.
        commit_message: of the commit.
        create_pr: open a pull request instead of committing to the branch.
        token: for the Hub; the one of the login by default.
        results: of `read_results`, for the card and the Hub's leaderboards.
        notes: Markdown for the card.
        vlm_model, olmoearth_model: see `name_base_models`.

    Raises:
        FileNotFoundError: where the folder holds no bridge or a file of it is missing.
        ValueError: where nobody else could load the bridge, or the caller may not write there.
        ConnectionError: where the Hub cannot be reached.
    """
    config = BridgeConfig.read(folder)
    check_parts(folder, config)
    config = name_base_models(config, vlm_model, olmoearth_model, token)
    with tempfile.TemporaryDirectory(prefix="earthvlm-") as temporary:
        copy = Path(temporary)
        copy_published_files(folder, copy, config)
        config.write(copy)
        if config.use_lora:
            name_adapter_base(copy, config)
        if results is not None and results["bridge"] == bridge_revision(folder):
            # A revision includes the base models' names, which may have changed here.
            results = results | {"bridge": bridge_revision(copy)}
        write_bridge_card(copy, repo_id, results, notes)
        write_eval_results(copy, results)
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


def copy_published_files(folder: Path, target: Path, config: BridgeConfig) -> None:
    """Copy the files of a bridge that are published, without those that other runs left there."""
    files = [folder / name for name in (CONFIG_FILE, *list_parts(config), LOG_FILE, CURVE_FILE)]
    files += [sample_picture(folder, sample["image"]) for sample in read_last_samples(folder)]
    for path in files:
        if path.is_file():
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
