"""Publishing during training: in the background, and checked before training starts."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import main
from earthvlm.models.language.language_model import LANGUAGE_FILES
from earthvlm.storage.hub import fetch
from earthvlm.training.checkpointing.publisher import TrainingPublisher
from tests.support.generated_chatearthnet import write_generated_chatearthnet


def test_training_does_not_wait_for_an_upload(saved, monkeypatch):
    may_end, published = threading.Event(), []

    def publish_slowly(folder, repo_id, **options):
        assert may_end.wait(60)
        published.append(options["commit_message"])
        return "somewhere"

    monkeypatch.setattr("earthvlm.training.checkpointing.publisher.publish_bridge", publish_slowly)
    publisher = TrainingPublisher("owner/bridge", private=None, report=lambda sentence: None)
    publisher.publish_soon(saved, 10)
    publisher.publish_soon(saved, 20)  # skipped: the first is still uploading
    assert not publisher.last.done() and not published
    may_end.set()
    publisher.finish(saved)
    assert published == ["Train to step 10", "Add the trained bridge"]


def test_failed_upload_does_not_end_training(hub, saved):
    printed: list[str] = []
    publisher = TrainingPublisher("owner/bridge", private=None, report=printed.append)
    hub.failing = 403
    publisher.publish_soon(saved, 10)
    publisher.last.result()
    assert printed == [
        "Not published: The Hub does not let you write to owner/bridge: log in with "
        "`hf auth login`, with a token that may."
    ]
    hub.failing = None
    publisher.publish_soon(saved, 20)
    publisher.last.result()
    assert printed[-1].startswith("Published: ")
    hub.failing = 403
    publisher.finish(saved)
    assert printed[-1].endswith(f"earthvlm push {saved} owner/bridge")


@pytest.fixture
def training_options(hub, tmp_path, tiny_repository) -> list[str]:
    """A run of two steps on the CPU that publishes owner/bridge."""
    write_generated_chatearthnet(tmp_path / "data", train=4, val=1)
    options = [f"--data_dir={tmp_path / 'data'}", f"--output_dir={tmp_path / 'run'}"]
    options += ["--olmoearth_model=random-v1.2-nano", f"--vlm_model={tiny_repository[0]}"]
    options += ["--num_geo_queries=4", "--batch_size=2", "--num_workers=0", "--device=cpu"]
    options += ["--accumulation_steps=1"]
    return [*options, "--hub_push_steps=1", "--push_to_hub=owner/bridge"]


@pytest.mark.slow
def test_training_succeeds_without_the_hub(
    hub, training_options, tiny_repository, tmp_path, monkeypatch, capsys
):
    import huggingface_hub.utils._http as http

    monkeypatch.setattr(http.time, "sleep", lambda seconds: None)
    fetch(tiny_repository[0], LANGUAGE_FILES)
    hub.failing = 503
    assert main(["train", *training_options, "--hub_private_repo"]) == 0
    printed = capsys.readouterr().out
    assert "answered 503: try again later. Training starts, and tries again" in printed
    assert printed.count("Not published: The Hub, where owner/bridge would go, answered 503") >= 2
    assert f"earthvlm push {tmp_path / 'run'} owner/bridge --private" in printed
    assert OlmoEarthVLMBridge.from_pretrained(tmp_path / "run", "cpu").config.trained_on


def refuse_training(options: list[str], run: Path, capsys: pytest.CaptureFixture) -> str:
    """The sentence that refuses a training before it starts."""
    assert main(["train", *options]) == 2
    assert not run.exists()
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    return printed.removeprefix("earthvlm: ")


def test_training_without_the_right_to_push_is_refused(
    hub, training_options, tmp_path, monkeypatch, capsys
):
    hub.readers.add("hf_of_a_reader")
    hub.repository("owner/bridge").commit({})
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_reader")
    printed = refuse_training(training_options, tmp_path / "run", capsys)
    assert printed.startswith("The Hub does not let you write to owner/bridge: log in")


def test_private_push_to_a_public_repository_is_refused(hub, training_options, tmp_path, capsys):
    hub.repository("owner/bridge").commit({})
    printed = refuse_training([*training_options, "--hub_private_repo"], tmp_path / "run", capsys)
    assert printed.startswith(
        "owner/bridge is public on the Hub, and a private repository was asked"
    )


def test_training_on_a_local_model_for_a_push_is_refused(
    hub, training_options, tiny_language, tmp_path, capsys
):
    options = [*training_options, f"--vlm_model={tiny_language}"]
    printed = refuse_training(options, tmp_path / "run", capsys)
    assert f"the language model in the local folder {tiny_language}" in printed
    assert printed.endswith("--vlm_model OWNER/NAME.")
    assert "owner/bridge" not in hub.repositories
