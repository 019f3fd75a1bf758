"""The models a bridge is built on, and the Hub repositories where others find them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from earthvlm.bridge.config import BridgeConfig
from earthvlm.models.language_model import LANGUAGE_FILES
from earthvlm.models.olmoearth_loading import OLMOEARTH_FILES, RANDOM_MODEL_ID, olmoearth_repository
from earthvlm.models.smollm2 import EMBEDDED_MODEL_ID, EMBEDDED_REPOSITORY
from earthvlm.storage.hub import HUB_ID, LOCAL_REVISION, find_matching_commit


@dataclass(frozen=True)
class BaseModel:
    """A model with released weights that a bridge is built on.

    part: what people call it. name: "vlm" or "olmoearth", as in the configuration's fields.
    id: as the configuration has it. repository: its Hub repository, None where it is in a local
    folder. commit: of that repository, None where the weights come from elsewhere. files: patterns
    of what is loaded. weights: patterns of its weights alone.
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
        """The argument of training and of pushing that names it."""
        return f"--{self.name}_model"

    @property
    def remedy(self) -> str:
        """What to do where it is in a local folder."""
        if self.name == "olmoearth":
            return f"name the released model of which it is a copy with {self.option} allenai/NAME"
        return (
            f"publish that folder with `hf upload OWNER/NAME {self.id}`, then name its repository "
            f"with {self.option} OWNER/NAME"
        )


def find_language_model(config: BridgeConfig) -> BaseModel:
    """The language model of a bridge."""
    name, revision = config.vlm_model_id, config.vlm_revision
    repository, commit = name, revision or None
    if name == EMBEDDED_MODEL_ID:
        repository, commit = EMBEDDED_REPOSITORY, None  # the revision is of a Python package
    elif revision == LOCAL_REVISION or not HUB_ID.fullmatch(name):
        repository, commit = None, None
    weights = ("*.safetensors",)
    return BaseModel("language model", "vlm", name, repository, commit, LANGUAGE_FILES, weights)


def find_base_models(config: BridgeConfig) -> Iterator[BaseModel]:
    """The language model, and OlmoEarth where its weights did not start from random numbers.

    Raises ValueError for an OlmoEarth id that is none.
    """
    yield find_language_model(config)
    name = config.olmoearth_model_id
    if RANDOM_MODEL_ID.fullmatch(name):
        return
    repository, commit = None, None
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

    vlm_model, olmoearth_model: the repositories that hold what is in those folders.

    Raises ValueError where a model is in a folder and no repository is given, or the one given
    holds other weights; ConnectionError where the Hub cannot be reached.
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
                f"The bridge is built on the {model.part} in the local folder {model.id}, from "
                f"where nobody else can load it: {model.remedy}."
            )
        if model.name == "olmoearth":
            repository = olmoearth_repository(repository)
        if not Path(model.id).is_dir():
            raise ValueError(
                f"The folder {model.id} with the bridge's {model.part} is gone, so it cannot be "
                f"compared with {repository}: put it back there."
            )
        commit = find_matching_commit(repository, Path(model.id), model.weights, token)
        changes = {f"{model.name}_model_id": repository, f"{model.name}_revision": commit}
        config = replace(config, **changes)
    return config
