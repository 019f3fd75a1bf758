"""Publishing of a saved bridge on the Hub, with its card."""

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
from earthvlm.bridge.model_card import read_last_samples, write_bridge_card
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
        copy_published_files(folder, copy, config)
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


def copy_published_files(folder: Path, target: Path, config: BridgeConfig) -> None:
    """Copy the files of a bridge that are published, and nothing else that lies in its folder."""
    files = [folder / name for name in (CONFIG_FILE, *list_parts(config), LOG_FILE, CURVE_FILE)]
    files += [sample_picture(folder, sample["image"]) for sample in read_last_samples(folder)]
    for path in files:
        if path.is_file():
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
