"""Publishing a bridge and loading it again, with the real Hub client and a local Hub server."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from earthvlm.bridge.config import bridge_revision
from earthvlm.bridge.hub.model_card import write_bridge_card
from earthvlm.bridge.hub.publish import publish_bridge
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import main
from earthvlm.data.chatearthnet.dataset import HUB_ID
from earthvlm.storage.hub import fetch
from tests.conftest import draw_adapter, hub_environment, random_scene
from tests.support.forked_programs import run_program
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.hub_server import TOKEN
from tests.support.training_runs import TRAIN

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
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


def test_pushed_bridge_answers_as_before(hub, tiny_bridge):
    scene = random_scene()
    before = tiny_bridge.generate(scene, QUESTION, 12)
    address = tiny_bridge.push_to_hub("owner/bridge", private=True)
    assert address.startswith(f"{hub.url}/owner/bridge/commit/")
    repository = hub.repositories["owner/bridge"]
    assert repository.private and len(repository.commits) == 2  # an empty one, and ours
    again = OlmoEarthVLMBridge.from_pretrained("owner/bridge", device="cpu", dtype=torch.float32)
    assert again.generate(scene, QUESTION, 12) == before
    assert again.commit == repository.refs["main"] and again.commit[:7] in again.summary


def test_load_fetches_needed_files_once(hub, saved, monkeypatch, tmp_path):
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


def test_commits_and_branches_load_by_revision(hub, tiny_bridge):
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


def test_adapter_loads_with_peft_and_fusion_with_safetensors(hub, tiny_bridge, tiny_language):
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


def test_card_is_valid_and_shows_results(hub, saved):
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


def test_card_prints_the_recorded_commands_of_all_runs(saved):
    config = json.loads((saved / "config.json").read_text())
    launch = "accelerate launch -m earthvlm.train"
    first = config["training"] | {"command": f"{launch} --output_dir RUN1 --encoder_epochs 3"}
    config["training"] |= {"command": f"{launch} --model_path RUN1 --lora_r 8", "earlier": [first]}
    (saved / "config.json").write_text(json.dumps(config))
    write_bridge_card(saved, "owner/bridge")
    commands = re.search(r"```bash\n(.*?)```", (saved / "README.md").read_text(), re.DOTALL)[1]
    header = "# 2 steps, 1 minutes on CPU"
    for run, printed in zip((first, config["training"]), commands.split("\n\n"), strict=True):
        assert printed.startswith(header)
        assert " ".join(printed.split("\n", 1)[1].replace("\\", "").split()) == run["command"]


def test_card_names_the_datasets_of_all_runs(saved):
    config = json.loads((saved / "config.json").read_text())
    config["training"]["earlier"] = [config["training"] | {"dataset": HUB_ID}]
    (saved / "config.json").write_text(json.dumps(config))
    write_bridge_card(saved, "owner/bridge")
    assert ModelCard.load(saved / "README.md").data.datasets == [HUB_ID]


def test_card_of_released_weights_has_their_licence(hub, saved):
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


def test_checkpoints_in_a_folder_do_not_change_the_revision(saved):
    results = results_of(saved)
    shutil.copytree(saved, saved.parent / "copy")
    shutil.move(saved.parent / "copy", saved / "checkpoints" / "1")
    assert OlmoEarthVLMBridge.from_pretrained(saved, "cpu").revision == results["bridge"]
    write_bridge_card(saved, "owner/bridge", results)


def test_results_of_another_bridge_are_rejected(saved):
    results = results_of(saved) | {"bridge": "another"}
    with pytest.raises(ValueError, match="results are of bridge another"):
        write_bridge_card(saved, "owner/bridge", results)


def test_code_in_the_card_runs(hub, saved, monkeypatch, tmp_path, capsys):
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


def test_push_command_prints_the_address(hub, saved, capsys, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results_of(saved)))
    assert (
        main(["push", str(saved), "owner/bridge", "--results", str(tmp_path / "results.json")]) == 0
    )
    assert capsys.readouterr().out.startswith(f"{hub.url}/owner/bridge/commit/")
    assert main(["push", str(tmp_path / "nothing here"), "owner/bridge"]) == 2
    assert "nothing here holds no config.json: it is no bridge" in capsys.readouterr().err


@pytest.mark.end_to_end
def test_trained_bridge_answers_in_another_process(hub, tmp_path, tiny_repository, capsys):
    write_generated_chatearthnet(tmp_path / "data", train=4, val=2)
    random_scene().save(tmp_path / "scene.tif")

    messages: list[str] = []

    def run(cache: str, *command: str) -> str:
        done = run_program(*command, environment=hub_environment(hub.url, tmp_path / cache))
        messages.append(done.stderr)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout

    options = [f"--data_dir={tmp_path / 'data'}", f"--output_dir={tmp_path / 'run'}"]
    options += ["--olmoearth_model=random-v1.2-nano", "--no-freeze_olmoearth", "--device=cpu"]
    options += [f"--vlm_model={tiny_repository[0]}", "--num_geo_queries=4", "--num_workers=0"]
    options += ["--batch_size=2", "--accumulation_steps=1", "--max_steps=2"]
    options += ["--hub_push_steps=1", "--push_to_hub=owner/bridge"]
    assert "Published: " in run("first", *TRAIN, *options)
    assert "the trained bridge is in" in messages[0] and "publish it" not in messages[0]
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
    assert main(["train", *more, "--batch_size=2", "--num_workers=0"]) == 0
    config = json.loads((tmp_path / "finer" / "config.json").read_text())
    assert (config["patch_size"], config["embedding_patch_size"]) == (4, 8)
    assert "--model_path owner/bridge --patch_size 4" in config["training"]["command"]
    assert "--olmoearth_model random-v1.2-nano" in config["training"]["earlier"][0]["command"]
