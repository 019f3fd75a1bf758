"""The app as a Space: its published files, and how it starts with and without the Hub."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
import yaml

import earthvlm
from earthvlm.bridge.hub.publish import publish_bridge
from earthvlm.cli import main
from earthvlm.storage.hub import push
from earthvlm.ui.zero_gpu import borrow_gpu
from tests.conftest import hub_environment
from tests.support import zero_gpu
from tests.support.forked_programs import ForkedProgram, run_program
from tests.support.hub_server import TOKEN, LocalHub, Repository
from tests.support.ports import free_port
from tests.support.preloaded_python import VARIABLE

ROOT = Path(__file__).parents[2]
BUNDLED = Path(earthvlm.__file__).parent / "bundled"
pytestmark = pytest.mark.slow


@contextmanager
def running_app(folder: Path, environment: dict[str, str], log: Path) -> Iterator[str]:
    """The page that the app in a folder serves once it is up."""
    port = str(free_port())
    environment = {**environment, "GRADIO_SERVER_PORT": port, "GRADIO_SERVER_NAME": "127.0.0.1"}
    app = ForkedProgram("app.py", output=log, folder=folder, environment=environment)
    try:
        deadline = time.time() + 180
        while time.time() < deadline and app.is_running:
            try:
                page = requests.get(f"http://127.0.0.1:{port}/", timeout=30)
            except requests.ConnectionError:
                time.sleep(0.1)
                continue
            assert page.headers["Content-Type"].startswith("text/html"), page.text
            yield page.text
            return
        raise AssertionError(f"the app did not start: {log.read_text()}")
    finally:
        if app.is_running:
            app.kill()


def publish(arguments: list[str]) -> int:
    return main(["publish-space", *arguments])


def publish_trained_on(hub: LocalHub, saved: Path, **base_models: str) -> None:
    """Publish that bridge as if it had been trained on other models, and an embedding dataset."""
    config = json.loads((saved / "config.json").read_text()) | base_models
    (saved / "config.json").write_text(json.dumps(config))
    publish_bridge(saved, "owner/bridge")
    hub.repository("datasets/owner/embeddings").commit({"embeddings.parquet": b""})


@pytest.fixture
def without_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish a Space without the pair that it falls back on: tens of megabytes each time."""
    ignored = shutil.ignore_patterns("__pycache__", ".*", "bundled")
    monkeypatch.setattr("earthvlm.publishing.space.IGNORED", ignored)


EMBEDDED = {"vlm_model_id": "embedded", "vlm_revision": "b179c952"}
ASKED = ["owner/space", "--bridge=owner/bridge", "--embeddings=owner/embeddings"]


def test_space_is_published_with_files_and_variables(hub, saved, capsys):
    publish_trained_on(hub, saved, **EMBEDDED)
    assert publish([*ASKED, "--torch_index=http://127.0.0.1/cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{hub.url}/")
    space = hub.repositories["spaces/owner/space"]
    assert space.variables == {
        "EARTHVLM_BRIDGE": "owner/bridge",
        "EARTHVLM_EMBEDDINGS": "owner/embeddings",
        "EARTHVLM_EMBEDDINGS_MOUNT": "/embeddings",
    }
    assert not space.secrets
    front = read_front_matter(space)
    assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and front["sdk_version"]
    assert front["python_version"] and front["datasets"] == ["owner/embeddings"]
    assert front["models"] == front["preload_from_hub"] == ["owner/bridge"]
    card = space.files["README.md"].decode()
    assert "[owner/bridge](https://huggingface.co/owner/bridge)" in card
    assert "[owner/embeddings](https://huggingface.co/datasets/owner/embeddings)" in card
    assert {"app.py", "requirements.txt", "LICENSE", "earthvlm/bridge/model.py"} <= set(space.files)
    assert b"\n" in space.files["earthvlm/bundled/bridge/config.json"]  # to fall back on
    first, *pins = space.files["requirements.txt"].decode().splitlines()
    assert first == "--extra-index-url http://127.0.0.1/cpu"
    assert pins == (ROOT / "requirements.lock").read_text().splitlines()
    assert "torch==2.13.0" in pins
    assert not any("__pycache__" in name or name.startswith("tests/") for name in space.files)
    assert not any(TOKEN.encode() in content for content in space.files.values())


def read_front_matter(space: Repository) -> dict:
    return yaml.safe_load(space.files["README.md"].decode().split("---\n")[1])


@pytest.mark.usefixtures("without_bundled")
def test_space_mounts_its_dataset_at_one_commit(hub, saved):
    publish_trained_on(hub, saved, **EMBEDDED)
    publish(ASKED)
    space = hub.repositories["spaces/owner/space"]
    commit = hub.repositories["datasets/owner/embeddings"].refs["main"]
    mounted = {"type": "dataset", "source": "owner/embeddings", "mountPath": "/embeddings"}
    mounted |= {"revision": commit, "readOnly": True}
    assert space.volumes == [mounted]
    theirs = {"type": "bucket", "source": "owner/bucket", "mountPath": "/data"}
    space.volumes.append(theirs)
    publish(ASKED)
    assert sorted(space.volumes, key=str) == sorted([mounted, theirs], key=str)
    publish(["owner/space", "--bridge=owner/bridge"])  # with the bundled scenes
    assert space.volumes == [theirs] and not space.variables["EARTHVLM_EMBEDDINGS_MOUNT"]
    space.volumes = [mounted]
    publish(["owner/space", "--bridge=owner/bridge"])
    assert not space.volumes


@pytest.mark.usefixtures("without_bundled")
def test_space_without_its_volume_is_published(hub, saved, capsys):
    publish_trained_on(hub, saved, **EMBEDDED)
    hub.refuses_volumes = True
    assert publish(ASKED) == 0
    assert "did not mount the dataset (402), so the app downloads it" in capsys.readouterr().err
    space = hub.repositories["spaces/owner/space"]
    assert "app.py" in space.files and space.variables["EARTHVLM_EMBEDDINGS"] == "owner/embeddings"


@pytest.mark.usefixtures("without_bundled")
def test_space_of_private_repositories_needs_a_token(hub, saved, monkeypatch, capsys):
    publish_trained_on(hub, saved, **EMBEDDED)
    hub.repositories["owner/bridge"].private = True
    hub.repositories["datasets/owner/embeddings"].private = True
    assert publish(ASKED) == 2
    said = capsys.readouterr().err
    assert "owner/embeddings and owner/bridge can only be read with a token" in said
    assert "EARTHVLM_SPACE_TOKEN" in said and "spaces/owner/space" not in hub.repositories
    monkeypatch.setenv("EARTHVLM_SPACE_TOKEN", "hf_of_the_space")
    assert publish(ASKED) == 0
    space = hub.repositories["spaces/owner/space"]
    assert space.secrets == {"HF_TOKEN": "hf_of_the_space"}
    assert "hf_of_the_space" not in str(space.variables)
    front = read_front_matter(space)
    assert front["models"] == ["owner/bridge"] and "preload_from_hub" not in front
    assert not any(b"hf_of_the_space" in content for content in space.files.values())


@pytest.mark.usefixtures("without_bundled")
def test_update_removes_old_files_and_keeps_others(hub, saved):
    publish_trained_on(hub, saved, **EMBEDDED)
    publish(ASKED)
    space = hub.repositories["spaces/owner/space"]
    others = {".gitattributes": b"a", "notes.md": b"b", "packages.txt": b"c"}
    space.commit({**space.files, **others, "earthvlm/removed.py": b"d"})
    publish(ASKED)
    assert {name: space.files[name] for name in others} == others
    assert "earthvlm/removed.py" not in space.files and "earthvlm/bridge/model.py" in space.files


def test_private_space_cannot_replace_a_public_one(hub, capsys):
    hub.repository("spaces/owner/space").commit({})
    assert publish(["owner/space", "--private"]) == 2
    assert "owner/space is public on the Hub, and a private" in capsys.readouterr().err
    assert not hub.repositories["spaces/owner/space"].variables


@pytest.mark.usefixtures("without_bundled")
def test_space_preloads_the_base_models_of_its_bridge(hub, saved):
    moondream, olmoearth = (
        hub.repository(name) for name in ("vikhyatk/moondream2", "allenai/OlmoEarth-v1-Nano")
    )
    words = moondream.commit({"model.safetensors": b"", "vocab.json": b"", "code.py": b""})
    sight = olmoearth.commit({"config.json": b"{}", "weights.pth": b"", "README.md": b""})
    for repository in (moondream, olmoearth):
        repository.commit({"config.json": b"of a later one"})
    base_models = {"vlm_model_id": "vikhyatk/moondream2", "vlm_revision": words}
    base_models |= {"olmoearth_model_id": "OlmoEarth-v1-Nano", "olmoearth_revision": sight}
    publish_trained_on(hub, saved, **base_models)
    assert publish(["owner/space", "--bridge=owner/bridge"]) == 0
    front = read_front_matter(hub.repositories["spaces/owner/space"])
    assert front["models"] == ["owner/bridge", "vikhyatk/moondream2", "allenai/OlmoEarth-v1-Nano"]
    assert front["preload_from_hub"] == [
        "owner/bridge",
        f"vikhyatk/moondream2 model.safetensors,vocab.json {words}",
        f"allenai/OlmoEarth-v1-Nano config.json,weights.pth {sight}",
    ]


def test_space_of_local_folders_is_refused(hub, saved, tiny_language, capsys):
    config = json.loads((saved / "config.json").read_text())
    config |= {"vlm_model_id": tiny_language, "vlm_revision": "local"}
    hub.repository("owner/bridge").commit({"config.json": json.dumps(config).encode()})
    assert publish(["owner/space", "--bridge=owner/bridge"]) == 2
    assert f"trained on the language model in the folder {tiny_language}" in capsys.readouterr().err
    for option in ("bridge", "embeddings"):
        assert publish(["owner/space", f"--{option}={saved}"]) == 2
        assert f"{saved} is a local folder, which a Space cannot read" in capsys.readouterr().err
    assert publish(["owner/space", "--embeddings=owner/bridge"]) == 2
    assert "There is no dataset owner/bridge on the Hub that you may read" in (
        capsys.readouterr().err
    )
    assert "spaces/owner/space" not in hub.repositories


def test_space_of_another_repository_is_refused(hub, capsys):
    hub.repository("owner/other").commit({"config.json": b'{"model_type": "bert"}'})
    assert publish(["owner/space", "--bridge=owner/other"]) == 2
    assert "is not a bridge's configuration" in capsys.readouterr().err
    assert "spaces/owner/space" not in hub.repositories


@pytest.mark.end_to_end
@pytest.mark.usefixtures("without_bundled")
def test_space_shows_the_revisions_on_the_hub(hub, tmp_path, monkeypatch):
    publish_bridge(BUNDLED / "bridge", "owner/bridge", private=True)
    push(
        BUNDLED / "embeddings",
        "owner/embeddings",
        ["*.parquet", "scenes/*"],
        commit_message="Add scenes",
        repo_type="dataset",
        private=True,
    )
    hub.readers.add("hf_of_the_space")
    monkeypatch.setenv("EARTHVLM_SPACE_TOKEN", "hf_of_the_space")
    assert publish(ASKED) == 0
    variables = write_files(hub, tmp_path / "space")
    environment = hub_environment(hub.url, tmp_path / "home") | variables
    with running_app(tmp_path / "space", environment, tmp_path / "log") as page:
        assert hub.repositories["owner/bridge"].refs["main"][:7] in page
        assert hub.repositories["datasets/owner/embeddings"].refs["main"][:7] in page
        assert "The Hub does not answer" not in page


@pytest.mark.end_to_end
@pytest.mark.nightly
def test_mounted_dataset_is_not_downloaded(hub, tmp_path):
    push(
        BUNDLED / "embeddings",
        "owner/embeddings",
        ["*.parquet", "scenes/*"],
        commit_message="Add scenes",
        repo_type="dataset",
    )
    publish(["owner/space", "--embeddings=owner/embeddings"])
    mounted = write_files(hub, tmp_path / "space")
    mounted["EARTHVLM_EMBEDDINGS_MOUNT"] = str(BUNDLED / "embeddings")
    environment = hub_environment(hub.url, tmp_path / "home") | mounted
    sent = len(hub.sent)
    with running_app(tmp_path / "space", environment, tmp_path / "log") as page:
        assert "83, embedded by" in page and "The Hub does not answer" not in page
    assert len(hub.sent) == sent
    assert "Loading weights" not in (tmp_path / "log").read_text("utf-8")  # transformers' bar


@pytest.mark.end_to_end
def test_app_starts_without_the_hub(bundled_bridge, tmp_path):
    with socket.socket() as silent:  # takes connections, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = hub_environment(url, tmp_path)
        environment |= {"HF_HUB_ETAG_TIMEOUT": "4"}
        environment |= {"EARTHVLM_BRIDGE": "owner/bridge", "EARTHVLM_EMBEDDINGS": "owner/scenes"}
        with running_app(ROOT, environment, tmp_path / "log") as page:
            assert "The Hub does not answer, so owner/bridge and owner/scenes" in page
            assert bundled_bridge.revision in page


@pytest.mark.end_to_end
@pytest.mark.skipif(find_spec("spaces") is None, reason="the spaces package is not installed")
def test_each_bridge_call_borrows_a_gpu_on_zero_gpu():
    ended = subprocess.run(
        [os.environ.get(VARIABLE, sys.executable), "-m", "tests.support.zero_gpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["device"] == "cuda:0"  # the bridge was loaded after torch was given a GPU
    assert told["asked"] == ["/schedule", "/allow", "/release"] * 3
    assert told["answer"].startswith("No") and told["words"].strip() == told["answer"]
    assert told["found"] == zero_gpu.SCENE


def test_zero_gpu_is_unused_elsewhere():
    assert borrow_gpu is None


def test_zero_gpu_needs_a_torch_with_cuda(hub, capsys):
    asked = ["owner/space", "--hardware=zero-a10g", "--torch_index=http://127.0.0.1/cpu"]
    assert publish(asked) == 2
    assert "ZeroGPU needs a torch with CUDA" in capsys.readouterr().err
    assert not hub.repositories


def test_space_is_written_into_a_new_folder_alone(tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    assert main(["publish-space", "owner/space", f"--output={tmp_path}"]) == 2
    assert f"{tmp_path} holds files already: name a new folder" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "mine"


def test_unknown_name_ends_the_app_with_one_sentence():
    ended = run_program("app.py", environment={**os.environ, "EARTHVLM_BRIDGE": "no such place"})
    assert ended.returncode == 2
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("earthvlm: There is no folder no such place: check its path; ")


def write_files(hub: LocalHub, folder: Path) -> dict[str, str]:
    """Write a published Space's files as its machine does; returns its environment."""
    space = hub.repositories["spaces/owner/space"]
    for name, content in space.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return space.variables | space.secrets
