"""Publish the app as a Hugging Face Space that shows a bridge and an embedding dataset.

    python hub/publish_space.py owner/space --bridge owner/earthvlm --embeddings owner/embeddings

One commit holds the app, the package with the bundled pair to fall back on, and the requirements.
Log in first with `hf auth login`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from earthvlm.bridge_config import BRIDGE_FILES, BridgeConfig
from earthvlm.embedded_model import EMBEDDED_MODEL_ID
from earthvlm.hub import BUNDLED, LOCAL_REVISION, fetch, list_files, push
from earthvlm.language import LANGUAGE_FILES
from earthvlm.olmoearth_models import OLMOEARTH_FILES, RANDOM_MODEL_ID, olmoearth_repository

ROOT = Path(__file__).parent.parent
PARTS = ("app.py", "earthvlm", "requirements.txt", "LICENSE", "NOTICE")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
README = "README.md"
ZERO_GPU = "zero-"  # how the Hub's names of that hardware begin


def write_space(
    folder: Path, bridge: str, embeddings: str, torch_index: str | None = None
) -> dict[str, str]:
    """Write a Space's files into a folder, and return the variables it is to run with.

    torch_index: where pip finds builds of torch without CUDA; without it the Space installs what
        its platform's default is.
    Raises ValueError or FileNotFoundError where the bridge is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=LEFT_OUT)
        else:
            shutil.copyfile(path, folder / name)
    if torch_index:
        requirements = (ROOT / "requirements.txt").read_text("utf-8")
        (folder / "requirements.txt").write_text(f"--extra-index-url {torch_index}\n{requirements}")
    front = read_front_matter() | _describe_models(bridge, embeddings)
    (folder / README).write_text(
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n"
        f"# earthvlm\n\n{front['short_description']}.\n\n"
        f"Bridge: `{bridge}`. Scenes: `{embeddings}`.\n",
        "utf-8",
    )
    return {"EARTHVLM_BRIDGE": bridge, "EARTHVLM_EMBEDDINGS": embeddings}


def read_front_matter() -> dict[str, Any]:
    """What the project's own README tells a Space: SDK, Python, the file to run."""
    return yaml.safe_load((ROOT / README).read_text("utf-8").split("---\n")[1])


def _describe_models(bridge: str, embeddings: str) -> dict[str, list[str]]:
    """The front matter's models and datasets, and what to fetch while the Space is built."""
    models, preload = [], []
    if bridge != BUNDLED:
        snapshot = fetch(bridge, BRIDGE_FILES[:1])
        if snapshot.revision == LOCAL_REVISION:
            raise ValueError(
                f"{bridge} is a folder, which a Space has not: earthvlm push it first."
            )
        config = BridgeConfig.read(snapshot.folder)
        models, preload = [bridge], [bridge]
        for repository, patterns, commit in _find_base_models(bridge, config):
            # As the bridge loads them: some files, at one commit where that was noted.
            names = ",".join(list_files(repository, patterns, commit or None))
            models.append(repository)
            preload.append(f"{repository} {names} {commit}".rstrip())
    datasets = [] if embeddings == BUNDLED else [embeddings]
    front = {"models": models, "datasets": datasets, "preload_from_hub": preload}
    return {name: values for name, values in front.items() if values}


def _find_base_models(
    bridge: str, config: BridgeConfig
) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """The repositories of the models that a bridge was trained on, their files and commits."""
    used = []
    if config.vlm_model_id != EMBEDDED_MODEL_ID:
        used.append((config.vlm_model_id, LANGUAGE_FILES, config.vlm_revision))
    if not RANDOM_MODEL_ID.fullmatch(config.olmoearth_model_id):
        used.append((config.olmoearth_model_id, OLMOEARTH_FILES, config.olmoearth_revision))
    for model_id, patterns, commit in used:
        if commit == LOCAL_REVISION:
            raise ValueError(
                f"{bridge} was trained on the files in {model_id}, which a Space has not: publish "
                "them, and train on the repository."
            )
        # OlmoEarth's ids go without their owner.
        yield model_id if "/" in model_id else olmoearth_repository(model_id), patterns, commit


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after one sentence on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("space", help="where to, as in owner/name; made where there is none")
    parser.add_argument("--bridge", default=BUNDLED, help="a Hub repository (%(default)s)")
    parser.add_argument("--embeddings", default=BUNDLED, help="a Hub dataset (%(default)s)")
    parser.add_argument("--private", action="store_true", help="make the Space a private one")
    parser.add_argument("--hardware", help="as in cpu-basic or zero-a10g (the Hub's default)")
    parser.add_argument(
        "--torch_index", metavar="URL", help="where pip finds builds of torch without CUDA"
    )
    parser.add_argument("--output", type=Path, help="write the files here, and publish nothing")
    options = parser.parse_args(argv)
    try:
        if options.torch_index and (options.hardware or "").startswith(ZERO_GPU):
            raise ValueError("ZeroGPU needs a torch with CUDA: leave --torch_index out.")
        with tempfile.TemporaryDirectory(prefix="earthvlm-space-") as temporary:
            folder = options.output or Path(temporary) / "space"
            variables = write_space(folder, options.bridge, options.embeddings, options.torch_index)
            if options.output:
                print("\n".join(f"{name}={value}" for name, value in variables.items()))
                return 0
            address = push(
                folder,
                options.space,
                ["*"],
                commit_message="Publish the app",
                repo_type="space",
                private=options.private or None,
                space_sdk="gradio",
                space_hardware=options.hardware,
                variables=variables,
            )
    except (ConnectionError, OSError, ValueError) as error:
        print(f"publish_space.py: {error}", file=sys.stderr)
        return 2
    print(address)
    return 0


if __name__ == "__main__":
    sys.exit(main())
