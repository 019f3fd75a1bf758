"""The base models of a bridge, and the Hub repositories they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from earthvlm.bridge.config import BridgeConfig
from earthvlm.models.language.language_model import LANGUAGE_FILES
from earthvlm.models.language.smollm2 import EMBEDDED_MODEL_ID, EMBEDDED_REPOSITORY
from earthvlm.models.olmoearth_loading import OLMOEARTH_FILES, RANDOM_MODEL_ID, olmoearth_repository
from earthvlm.storage.hub import HUB_ID, LOCAL_REVISION, find_matching_commit


@dataclass(frozen=True)
class BaseModel:
    """A model with released weights that a bridge is built on.

    Attributes:
        part: what it is called in messages.
        name: "vlm" or "olmoearth", as in the configuration's entries.
        id: of the model in the configuration.
        repository: on the Hub; None for a model in a local folder.
        commit: of that repository; None where the weights do not come from it.
        files: patterns of the files that are loaded.
        weights: patterns of the weight files among them.
    """

    part: str
    name: str
    id: str
    repository: str | None
    commit: str | None
    files: tuple[str, ...]
    weights: tuple[str, ...]

    @property
    def option(self) -> str:
        """The command-line option of training and pushing that names it."""
        return f"--{self.name}_model"

    @property
    def remedy(self) -> str:
        """What a user can do about a model in a local folder."""
        if self.name == "olmoearth":
            return f"name the released model that it is a copy of with {self.option} allenai/NAME"
        return (
            f"publish that folder with `hf upload OWNER/NAME {self.id}`, then name its repository "
            f"with {self.option} OWNER/NAME"
        )


def find_language_model(config: BridgeConfig) -> BaseModel:
    """Describe the language model of a bridge."""
    name, revision = config.vlm_model_id, config.vlm_revision
    repository: str | None = name
    commit = revision or None
    if name == EMBEDDED_MODEL_ID:
        repository, commit = EMBEDDED_REPOSITORY, None  # the revision is of a Python package
    elif revision == LOCAL_REVISION or not HUB_ID.fullmatch(name):
        repository, commit = None, None
    weights = ("*.safetensors",)
    return BaseModel("language model", "vlm", name, repository, commit, LANGUAGE_FILES, weights)


def find_base_models(config: BridgeConfig) -> Iterator[BaseModel]:
    """Yield the language model, and OlmoEarth unless its weights were initialized at random.

    Raises ValueError for an unknown OlmoEarth id.
    """
    yield find_language_model(config)
    name = config.olmoearth_model_id
    if RANDOM_MODEL_ID.fullmatch(name):
        return
    repository = commit = None
    if config.olmoearth_revision != LOCAL_REVISION:
        repository, commit = olmoearth_repository(name), config.olmoearth_revision or None
    files, weights = OLMOEARTH_FILES, OLMOEARTH_FILES[1:]
    yield BaseModel("OlmoEarth", "olmoearth", name, repository, commit, files, weights)


def name_base_models(
    config: BridgeConfig,
    vlm_model: str | None = None,
    olmoearth_model: str | None = None,
    token: str | None = None,
) -> BridgeConfig:
    """Return the configuration with Hub repositories in place of local folders.

    Args:
        config: of the bridge.
        vlm_model: the repository with the language model of a local folder.
        olmoearth_model: the repository with the OlmoEarth model of a local folder.
        token: for the Hub.

    Raises:
        ValueError: where a model is in a folder and no repository is given for it, or the given
            one holds other weights.
        ConnectionError: where the Hub cannot be reached.
    """
    given = {"vlm": vlm_model, "olmoearth": olmoearth_model}
    for model in find_base_models(config):
        repository = given[model.name]
        if model.repository is not None:
            if repository not in (None, model.id, model.repository):
                raise ValueError(
                    f"The bridge was built on {model.id}, not on {repository}: leave "
                    f"{model.option} out."
                )
            continue
        if repository is None:
            raise ValueError(
                f"The bridge is built on the {model.part} in the local folder {model.id}, which "
                f"nobody else can load: {model.remedy}."
            )
        if model.name == "olmoearth":
            repository = olmoearth_repository(repository)
        if not Path(model.id).is_dir():
            raise ValueError(
                f"The folder {model.id} with the bridge's {model.part} is missing, so it cannot be "
                f"compared with {repository}: put it back."
            )
        commit = find_matching_commit(repository, Path(model.id), model.weights, token)
        changes: dict[str, Any] = {
            f"{model.name}_model_id": repository,
            f"{model.name}_revision": commit,
        }
        config = replace(config, **changes)
    return config
