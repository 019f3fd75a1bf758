"""Publishing a bridge and loading it again: the real Hub client, and a Hub on this machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import train_accelerate
from earthvlm.bridge.config import bridge_revision
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.model_card import write_bridge_card
from earthvlm.bridge.publish import TrainingPublisher, publish_bridge
from earthvlm.cli import main
from earthvlm.data.chatearthnet import HUB_ID
from earthvlm.models.language_model import LANGUAGE_FILES
from earthvlm.storage.hub import fetch
from tests.conftest import draw_adapter, hub_environment, random_scene
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.hub_server import TOKEN

ROOT = Path(__file__).parents[2]
QUESTION = "Describe this scene."


def results_of(folder: Path) -> dict:
    figure = {
        "name": "is there water",
        "value": 0.9,
        "low": 0.8,
        "high": 0.95,
        "shuffled_image": 0.5,
    }
    figure |= {"no_image": 0.4, "tiles": 240}
    return {"bridge": bridge_revision(folder), "split": "val", "metrics": [figure], "tiles": []}


def test_a_pushed_bridge_answers_as_before(hub, tiny_bridge):
    scene = random_scene()
    before = tiny_bridge.generate(scene, QUESTION, 12)
    address = tiny_bridge.push_to_hub("owner/bridge", private=True)
    assert address.startswith(f"{hub.url}/owner/bridge/commit/")
    repository = hub.repositories["owner/bridge"]
    assert repository.private and len(repository.commits) == 2  # an empty one, and ours
    again = OlmoEarthVLMBridge.from_pretrained("owner/bridge", device="cpu", dtype=torch.float32)
    assert again.generate(scene, QUESTION, 12) == before
    assert again.commit == repository.refs["main"] and again.commit[:7] in again.summary


def test_only_what_is_needed_is_fetched_and_then_nothing(hub, saved, monkeypatch, tmp_path):
    publish_bridge(saved, "owner/bridge", results=results_of(saved))
    published = set(hub.repositories["owner/bridge"].files)
    assert {"README.md", "training_log.json", "config.json", "fusion.safetensors"} < published
    options = {"device": "cpu", "cache_dir": tmp_path / "cache"}
    first = OlmoEarthVLMBridge.from_pretrained("owner/bridge", **options)
    fetched = {path for path, _, _ in hub.sent}
    assert "README.md" not in fetched and "training_log.json" not in fetched
    hub.failing = 503
    again = OlmoEarthVLMBridge.from_pretrained("owner/bridge", **options, local_files_only=True)
    assert again.revision == first.revision and len({p for p, _, _ in hub.sent}) == len(fetched)


def test_an_older_commit_loads_by_its_hash_and_a_branch_by_its_name(hub, tiny_bridge):
    tiny_bridge.push_to_hub("owner/bridge")
    old, first = hub.repositories["owner/bridge"].refs["main"], tiny_bridge.revision
    with torch.no_grad():
        tiny_bridge.fusion.queries.add_(1)
    tiny_bridge.push_to_hub("owner/bridge", revision="next")
    load = OlmoEarthVLMBridge.from_pretrained
    assert load("owner/bridge", device="cpu").revision == first
    assert load("owner/bridge", device="cpu", revision="next").revision != first
    assert load("owner/bridge", device="cpu", revision=old).commit == old
    assert "discussions" in tiny_bridge.push_to_hub("owner/bridge", create_pr=True)
    assert hub.repositories["owner/bridge"].refs["main"] == old


def test_the_adapter_loads_by_peft_alone_and_the_fusion_by_safetensors(
    hub, tiny_bridge, tiny_language
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    draw_adapter(tiny_bridge, std=0.1)
    tiny_bridge.push_to_hub("owner/bridge")
    folder = fetch("owner/bridge", ["*"]).folder
    ours = OlmoEarthVLMBridge.from_pretrained("owner/bridge", "cpu", torch.float32).language.model
    ids = torch.arange(40)[None]
    with torch.no_grad():
        language = AutoModelForCausalLM.from_pretrained(tiny_language, dtype=torch.float32)
        plain = language(ids).logits
        adapted = PeftModel.from_pretrained(language, folder / "adapter")(ids).logits
        torch.testing.assert_close(adapted, ours(ids).logits)
    assert not torch.allclose(adapted, plain)
    state = load_file(folder / "fusion.safetensors")
    assert torch.equal(state["fusion.queries"], tiny_bridge.fusion.queries)


def test_the_card_tells_what_was_measured_and_is_valid(hub, saved):
    publish_bridge(saved, "owner/bridge", results=results_of(saved))
    content = hub.repositories["owner/bridge"].commits[
        hub.repositories["owner/bridge"].refs["main"]
    ]
    card = ModelCard(content["README.md"].decode())
    assert card.data.library_name == "earthvlm" and card.data.license == "apache-2.0"
    assert card.data.eval_results[0].metric_value == 0.9
    assert "| is there water | 0.900 | 0.800 to 0.950 | 0.500 | 0.400 | 240 |" in card.text
    assert content["samples/a.png"].startswith(b"\x89PNG")
    assert "| ![a.png](samples/a.png) | Water \\| land. | Water. Nothing else. |" in card.text
    assert "no released OlmoEarth weights" in " ".join(card.text.split())
    assert "# 2 steps, 1 minutes on CPU" in card.text and "--batch_size 6" in card.text
    assert "--olmoearth_model random-v1.2-nano" in card.text


def test_the_card_tells_every_stage_of_training(saved):
    config = json.loads((saved / "config.json").read_text())
    first = config["training"] | {"arguments": {"batch_size": 8, "encoder_epochs": 3}}
    second = first | {"patch_size": 4, "embedding_patch_size": 4}
    config["training"] |= {"earlier": [first, second], "patch_size": 4, "embedding_patch_size": 8}
    (saved / "config.json").write_text(json.dumps(config))
    write_bridge_card(saved, "owner/bridge")
    commands = re.search(r"```bash\n(.*?)```", (saved / "README.md").read_text(), re.DOTALL)[1]
    one, two, three = (stage.replace("\\\n ", "").split() for stage in commands.split("\n\n"))
    assert one[-2:] == ["--encoder_epochs", "3"] and "--patch_size" not in one  # 8 is the default
    assert two[two.index("--model_path") + 1] == one[one.index("--output_dir") + 1] == "RUN1"
    assert two[two.index("--patch_size") + 1] == "4" and "--embedding_patch_size" not in two
    assert three[three.index("--embedding_patch_size") + 1] == "8" and "--patch_size" not in three
    assert three[three.index("--batch_size") + 1] == "6"


def test_the_card_names_the_dataset_of_any_stage(saved):
    config = json.loads((saved / "config.json").read_text())
    config["training"]["earlier"] = [config["training"] | {"dataset": HUB_ID}]
    (saved / "config.json").write_text(json.dumps(config))
    write_bridge_card(saved, "owner/bridge")
    assert ModelCard.load(saved / "README.md").data.datasets == [HUB_ID]


def test_a_card_of_released_weights_carries_their_licence(hub, saved):
    config = json.loads((saved / "config.json").read_text())
    config |= {"olmoearth_model_id": "OlmoEarth-v1-Nano", "vlm_model_id": "vikhyatk/moondream2"}
    config |= {"olmoearth_revision": "a" * 40, "vlm_revision": "b" * 40}
    (saved / "config.json").write_text(json.dumps(config))
    write_bridge_card(saved, "owner/bridge")
    front = yaml.safe_load((saved / "README.md").read_text().split("---\n")[1])
    assert front["license"] == "other" and front["license_name"] == "olmoearth-artifact-license"
    assert front["license_link"].startswith("https://")
    ModelCard.load(saved / "README.md").validate()
    assert front["base_model"] == ["vikhyatk/moondream2", "allenai/OlmoEarth-v1-Nano"]


def test_results_of_a_run_are_its_bridges_whatever_checkpoints_lie_beside_it(saved):
    results = results_of(saved)
    shutil.copytree(saved, saved.parent / "copy")
    shutil.move(saved.parent / "copy", saved / "checkpoints" / "1")
    assert OlmoEarthVLMBridge.from_pretrained(saved, "cpu").revision == results["bridge"]
    write_bridge_card(saved, "owner/bridge", results)


def test_the_card_of_other_results_is_refused(saved):
    results = results_of(saved) | {"bridge": "another"}
    with pytest.raises(ValueError, match="results are of bridge another"):
        write_bridge_card(saved, "owner/bridge", results)


def test_the_code_in_the_card_runs(hub, saved, monkeypatch, tmp_path, capsys):
    publish_bridge(saved, "owner/bridge")
    text = hub.repositories["owner/bridge"].files["README.md"].decode()
    use, adapter = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    random_scene().save(tmp_path / "scene.tif")
    monkeypatch.chdir(tmp_path)
    exec(compile(use, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
    found: dict[str, object] = {}
    exec(compile(adapter, "README.md", "exec"), found)
    assert found["model"].peft_config["default"].base_model_name_or_path == "tests/tiny-llama"


def test_the_command_pushes_and_says_where(hub, saved, capsys, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results_of(saved)))
    assert (
        main(["push", str(saved), "owner/bridge", "--results", str(tmp_path / "results.json")]) == 0
    )
    assert capsys.readouterr().out.startswith(f"{hub.url}/owner/bridge/commit/")
    assert main(["push", str(tmp_path / "nothing here"), "owner/bridge"]) == 2
    assert "nothing here holds no config.json: it is no bridge" in capsys.readouterr().err


def test_training_does_not_wait_for_what_is_published(saved, monkeypatch):
    may_end, published = threading.Event(), []

    def publish_slowly(folder, repo_id, **options):
        assert may_end.wait(60)
        published.append(options["commit_message"])
        return "somewhere"

    monkeypatch.setattr("earthvlm.bridge.publish.publish_bridge", publish_slowly)
    publisher = TrainingPublisher("owner/bridge", private=None, report=lambda sentence: None)
    publisher.publish_soon(saved, 10)
    publisher.publish_soon(saved, 20)  # the one before is still on its way
    assert not publisher.last.done() and not published
    may_end.set()
    publisher.finish(saved)
    assert published == ["Train to step 10", "Add the trained bridge"]


def test_training_goes_on_where_publishing_fails(hub, saved):
    said: list[str] = []
    publisher = TrainingPublisher("owner/bridge", private=None, report=said.append)
    hub.failing = 403
    publisher.publish_soon(saved, 10)
    publisher.last.result()
    assert said == [
        "Not published: The Hub does not let you write to owner/bridge: log in with "
        "`hf auth login`, with a token that may."
    ]
    hub.failing = None
    publisher.publish_soon(saved, 20)
    publisher.last.result()
    assert said[-1].startswith("Published: ")
    hub.failing = 403
    publisher.finish(saved)
    assert said[-1].endswith(f"earthvlm push {saved} owner/bridge")


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
def test_training_ends_well_without_the_hub(
    hub, training_options, tiny_repository, tmp_path, monkeypatch, capsys
):
    import huggingface_hub.utils._http as http

    monkeypatch.setattr(http.time, "sleep", lambda seconds: None)
    fetch(tiny_repository[0], LANGUAGE_FILES)
    hub.failing = 503
    assert train_accelerate.main([*training_options, "--hub_private_repo"]) == 0
    said = capsys.readouterr().out
    assert "answered 503: try again later. Training starts, and tries again" in said
    assert said.count("Not published: The Hub, where owner/bridge would go, answered 503") >= 2
    assert f"earthvlm push {tmp_path / 'run'} owner/bridge --private" in said
    assert OlmoEarthVLMBridge.from_pretrained(tmp_path / "run", "cpu").config.trained_on


def refuse_training(options: list[str], run: Path, capsys: pytest.CaptureFixture) -> str:
    """The sentence with which training is refused before it starts."""
    assert train_accelerate.main(options) == 2
    assert not run.exists()
    said = capsys.readouterr().err.strip().splitlines()[-1]
    return said.removeprefix("train_accelerate: ")


def test_training_without_the_right_to_push_is_refused(
    hub, training_options, tmp_path, monkeypatch, capsys
):
    hub.readers.add("hf_of_a_reader")
    hub.repository("owner/bridge").commit({})
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_reader")
    said = refuse_training(training_options, tmp_path / "run", capsys)
    assert said.startswith("The Hub does not let you write to owner/bridge: log in")


def test_training_for_a_private_push_to_a_public_repository_is_refused(
    hub, training_options, tmp_path, capsys
):
    hub.repository("owner/bridge").commit({})
    said = refuse_training([*training_options, "--hub_private_repo"], tmp_path / "run", capsys)
    assert said.startswith("owner/bridge is public on the Hub, and a private repository was asked")


def test_training_on_a_local_model_for_a_push_is_refused(
    hub, training_options, tiny_language, tmp_path, capsys
):
    options = [*training_options, f"--vlm_model={tiny_language}"]
    said = refuse_training(options, tmp_path / "run", capsys)
    assert f"the language model in the local folder {tiny_language}" in said
    assert said.endswith("--vlm_model OWNER/NAME.")
    assert "owner/bridge" not in hub.repositories


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_trained_bridge_is_pushed_and_answers_in_another_process(
    hub, tmp_path, tiny_repository, capsys
):
    write_generated_chatearthnet(tmp_path / "data", train=4, val=2)
    random_scene().save(tmp_path / "scene.tif")

    def run(cache: str, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=hub_environment(hub.url, tmp_path / cache),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout

    launch = ["-m", "accelerate.commands.launch", "--num_processes=1", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no", "train_accelerate.py"]
    options = [f"--data_dir={tmp_path / 'data'}", f"--output_dir={tmp_path / 'run'}"]
    options += ["--olmoearth_model=random-v1.2-nano", "--no-freeze_olmoearth", "--device=cpu"]
    options += [f"--vlm_model={tiny_repository[0]}", "--num_geo_queries=4", "--num_workers=0"]
    options += ["--batch_size=2", "--accumulation_steps=1", "--max_steps=2"]
    options += ["--hub_push_steps=1", "--push_to_hub=owner/bridge"]
    assert "Published: " in run("first", *launch, *options)
    published = hub.repositories["owner/bridge"].files
    assert sum(name.startswith("samples/") for name in published) == 2
    assert not any(TOKEN.encode() in content for content in published.values())
    describe = ["-m", "earthvlm", "describe", str(tmp_path / "scene.tif"), "--max_length=12"]
    assert main([*describe[2:], f"--model_path={tmp_path / 'run'}"]) == 0
    assert run("second", *describe, "--model_path=owner/bridge") == capsys.readouterr().out
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()
    more = [f"--data_dir={tmp_path / 'data'}", "--model_path=owner/bridge", "--patch_size=4"]
    more += ["--embedding_patch_size=8"]
    more += [f"--output_dir={tmp_path / 'finer'}", "--max_steps=1", "--device=cpu"]
    assert train_accelerate.main([*more, "--batch_size=2", "--num_workers=0"]) == 0
    config = json.loads((tmp_path / "finer" / "config.json").read_text())
    assert config["patch_size"] == config["training"]["patch_size"] == 4
    assert config["embedding_patch_size"] == config["training"]["embedding_patch_size"] == 8
    assert [stage["patch_size"] for stage in config["training"]["earlier"]] == [8]
