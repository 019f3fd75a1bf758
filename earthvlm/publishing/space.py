"""Publish the app as a Hugging Face Space that shows a bridge and an embedding dataset.

One commit holds the app, the package with the bundled pair to fall back on, and the requirements.
Models are downloaded while the Space is built, and the dataset is mounted as a volume. If one of
them is private or gated, set $EARTHVLM_SPACE_TOKEN to a token that may read it; it becomes the
Space's secret HF_TOKEN.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from earthvlm.bridge.base_models import BaseModel, find_base_models
from earthvlm.bridge.config import BRIDGE_FILES, BridgeConfig
from earthvlm.models.language.smollm2 import EMBEDDED_MODEL_ID
from earthvlm.storage.hub import BUNDLED, Repository, fetch, find_repository, list_files, push

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PACKAGE = Path(__file__).parents[1]
# A wheel has these files in a folder of its own; see `force-include` in pyproject.toml.
WHEEL_FILES = Path(__file__).with_name("space")
REQUIREMENTS, LOCK, README = "requirements.txt", "requirements.lock", "README.md"
FILES = ("app.py", "LICENSE", "NOTICE")
IGNORED = shutil.ignore_patterns("__pycache__", ".*")
# A new push deletes the files of an earlier one that match these; the owner's other files stay.
OWNED_FILES = [README, REQUIREMENTS, *FILES, f"{PACKAGE.name}/*"]
ZERO_GPU = "zero-"  # the prefix of the Hub's names of ZeroGPU hardware
MOUNT = "/embeddings"
TOKEN_VARIABLE = "EARTHVLM_SPACE_TOKEN"
HUB_PAGE = "https://huggingface.co"


@dataclass(frozen=True)
class SpaceSources:
    """The repositories that a Space shows and loads.

    embeddings: the dataset's repository, None for the bundled one. models: ids for the Space's
    page to link. preloaded: entries of `preload_from_hub` in its README. restricted: ids of private
    and gated repositories, which are read with a token.
    """

    bridge_id: str
    embeddings: Repository | None
    models: list[str] = field(default_factory=list)
    preloaded: list[str] = field(default_factory=list)
    restricted: list[str] = field(default_factory=list)

    @property
    def embeddings_id(self) -> str:
        """The dataset that the app opens if none is mounted."""
        return BUNDLED if self.embeddings is None else self.embeddings.id

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of the Space."""
        return {
            "EARTHVLM_BRIDGE": self.bridge_id,
            "EARTHVLM_EMBEDDINGS": self.embeddings_id,
            "EARTHVLM_EMBEDDINGS_MOUNT": "" if self.embeddings is None else MOUNT,
        }


def find_sources(bridge: str, embeddings: str) -> SpaceSources:
    """Look up the repositories that a Space shows and loads.

    Raises ValueError or FileNotFoundError for a local folder and for a repository that is no bridge
    or no dataset, ConnectionError if the Hub cannot be reached.
    """
    dataset = None if embeddings == BUNDLED else _find(embeddings, "dataset")
    sources = SpaceSources(bridge, dataset)
    if dataset is not None and (dataset.is_private or dataset.is_gated):
        sources.restricted.append(dataset.id)
    if bridge == BUNDLED:
        return sources
    found = _find(bridge, "model")
    _add_model(sources, found, found.id)
    config = BridgeConfig.read(fetch(bridge, BRIDGE_FILES[:1]).folder)
    for repository, model in _find_downloaded_models(config):
        # Only the files that the bridge loads, at the commit that it was trained on.
        names = ",".join(list_files(repository, model.files, model.commit))
        listed = f"{repository} {names} {model.commit or ''}".rstrip()
        _add_model(sources, _find(repository, "model"), listed)
    return sources


def _find(repo_id: str, repo_type: str) -> Repository:
    if Path(repo_id).is_dir():
        command = "earthvlm push" if repo_type == "model" else "earthvlm embed-dataset"
        raise ValueError(
            f"{repo_id} is a local folder, which a Space cannot read: publish it first ({command})."
        )
    found = find_repository(repo_id, repo_type)
    if found is None:
        raise ValueError(f"There is no {repo_type} {repo_id} on the Hub that you may read.")
    return found


def _add_model(sources: SpaceSources, found: Repository, listed: str) -> None:
    sources.models.append(found.id)
    # Only the running app has the token, so it downloads these itself.
    is_restricted = found.is_private or found.is_gated
    (sources.restricted if is_restricted else sources.preloaded).append(
        found.id if is_restricted else listed
    )


def _find_downloaded_models(config: BridgeConfig) -> Iterator[tuple[str, BaseModel]]:
    """The models that a bridge loads, with their Hub ids. ValueError for one in a local folder."""
    for model in find_base_models(config):
        if model.repository is None:
            raise ValueError(
                f"The bridge was trained on the {model.part} in the folder {model.id}, which a "
                "Space cannot read: publish the bridge again with `earthvlm push`."
            )
        if model.id != EMBEDDED_MODEL_ID:
            yield model.repository, model


def write_space(folder: Path, sources: SpaceSources, torch_index: str | None = None) -> None:
    """Write a Space's files into a folder.

    torch_index: the package index of torch without CUDA; None for the platform's default torch.
    Raises ValueError for a folder that holds files already.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files already: name a new folder for the Space's files.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=IGNORED)
    for name in FILES:
        shutil.copyfile(find_file(name), folder / name)
    # A Space reads this file alone. All versions are pinned: it is built again whenever the Hub
    # moves it, years after it was tested.
    index = f"--extra-index-url {torch_index}\n" if torch_index else ""
    (folder / REQUIREMENTS).write_text(index + find_file(LOCK).read_text("utf-8"), "utf-8")
    dataset = sources.embeddings
    linked = {
        "models": sources.models,
        "datasets": [dataset.id] if dataset else [],
        "preload_from_hub": sources.preloaded,
    }
    front = read_front_matter() | {name: values for name, values in linked.items() if values}
    bridge = _link(sources.bridge_id, "")
    scenes = _link(sources.embeddings_id, "datasets/")
    at = f" at commit `{dataset.revision[:12]}`" if dataset else ""
    (folder / README).write_text(
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n"
        f"# earthvlm\n\n{front['short_description']}.\n\n"
        f"Bridge: {bridge}. Scenes: {scenes}{at}.\n",
        "utf-8",
    )


def find_file(name: str) -> Path:
    """One of the project's own files: next to the package in a checkout, in it in a wheel.

    Raises FileNotFoundError where neither is there.
    """
    for folder in (WHEEL_FILES, PACKAGE.parent):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{name} is missing next to {PACKAGE}: install earthvlm from its wheel or its repository."
    )


def _link(name: str, kind: str) -> str:
    if name == BUNDLED:
        return "the one that earthvlm bundles"
    return f"[{name}]({HUB_PAGE}/{kind}{name})"


def read_front_matter() -> dict[str, Any]:
    """The front matter of the project's README: the Space's SDK, Python and file to run."""
    return yaml.safe_load(find_file(README).read_text("utf-8").split("---\n")[1])


def read_token(sources: SpaceSources) -> str | None:
    """The token that becomes the Space's secret; None if all repositories are public.

    Raises ValueError if it is needed and not given.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if sources.restricted and not token:
        raise ValueError(
            f"{' and '.join(sources.restricted)} can only be read with a token: make one at "
            f"{HUB_PAGE}/settings/tokens that may read only what the Space shows, and give it in "
            f"the environment variable {TOKEN_VARIABLE}; it becomes the Space's secret HF_TOKEN."
        )
    return token if sources.restricted else None


def publish_space(
    space: str,
    sources: SpaceSources,
    report: Callable[[str], None],
    *,
    private: bool | None = None,
    hardware: str | None = None,
    torch_index: str | None = None,
) -> str:
    """Publish a Space and return the commit's address.

    Args:
        space: the Space's name on the Hub; it is made where there is none.
        sources: what it shows.
        report: called with a sentence where the Hub does not mount the dataset.
        private: see `push`.
        hardware: as the Hub names it; None takes the Hub's default.
        torch_index: see `write_space`.

    Raises:
        ValueError: the hardware or the token does not fit, or the caller may not write there.
        ConnectionError: the Hub cannot be reached.
    """
    if torch_index and (hardware or "").startswith(ZERO_GPU):
        raise ValueError("ZeroGPU needs a torch with CUDA: leave --torch_index out.")
    with tempfile.TemporaryDirectory(prefix="earthvlm-space-") as temporary:
        folder = Path(temporary) / "space"
        write_space(folder, sources, torch_index)
        return push(
            folder,
            space,
            ["*"],
            commit_message="Publish the app",
            owned=OWNED_FILES,
            repo_type="space",
            private=private,
            space_sdk="gradio",
            space_hardware=hardware,
            before_commit=partial(set_up_space, sources, read_token(sources), report),
        )


def set_up_space(
    sources: SpaceSources,
    token: str | None,
    report: Callable[[str], None],
    api: HfApi,
    space: str,
) -> None:
    """Set a Space's variables, its secret, and the volume with the embedding dataset."""
    for key, value in sources.variables.items():
        api.add_space_variable(space, key, value)
    if token is not None:
        reads = f"reads {' and '.join(sources.restricted)}"
        api.add_space_secret(space, "HF_TOKEN", token, description=reads)
    _mount(sources.embeddings, report, api, space)


def _mount(
    dataset: Repository | None, report: Callable[[str], None], api: HfApi, space: str
) -> None:
    """Mount a dataset at one commit; the owner's volumes at other paths stay.

    `preload_from_hub` takes only models. If the Hub refuses, the app downloads the dataset.
    """
    from huggingface_hub import Volume
    from huggingface_hub.errors import HfHubHTTPError

    before = api.get_space_runtime(space).volumes or []
    volumes = [volume for volume in before if volume.mount_path != MOUNT]
    if dataset is not None:
        volume = {"type": "dataset", "source": dataset.id, "revision": dataset.revision}
        volumes.append(Volume(**volume, mount_path=MOUNT, read_only=True))
    if volumes == before:
        return
    try:
        api.set_space_volumes(space, volumes) if volumes else api.delete_space_volumes(space)
    except HfHubHTTPError as error:
        report(
            f"The Hub did not mount the dataset ({error.response.status_code}), so the app "
            "downloads it when it starts."
        )
