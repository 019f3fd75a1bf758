"""What a push replaces, refuses and tells others: against a Hub on this machine."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from earthvlm.bridge.base_models import find_base_models, name_base_models
from earthvlm.bridge.config import BridgeConfig, bridge_revision
from earthvlm.bridge.hub.model_card import write_bridge_card
from earthvlm.bridge.hub.publish import publish_bridge
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import main
from earthvlm.models.language.smollm2 import EMBEDDED_REPOSITORY
from earthvlm.storage.hub import fetch
from tests.bridge.hub.test_publish import results_of
from tests.conftest import draw_adapter
from tests.support.hub_server import LocalHub
from tests.support.tiny_models import save_tiny_model

pytestmark = pytest.mark.slow


def change_config(folder: Path, **changes: object) -> BridgeConfig:
    config = replace(BridgeConfig.read(folder), **changes)
    config.write(folder)
    return config


# Private and public


@pytest.mark.parametrize(("asked", "is_private"), [("private", False), ("public", True)])
def test_a_push_of_the_other_visibility_is_refused(hub, saved, capsys, asked, is_private):
    repository = hub.repository("owner/bridge")
    repository.private = is_private
    before = repository.commit({"kept.txt": b"kept"})
    assert main(["push", str(saved), "owner/bridge", f"--{asked}"]) == 2
    said = capsys.readouterr().err
    found = "private" if is_private else "public"
    assert f"owner/bridge is {found} on the Hub, and a {asked} repository was asked for" in said
    assert "--public" in said and said.count("\n") == 1
    assert repository.refs["main"] == before and hub.received < 2000  # no file of the bridge


def test_a_push_without_a_wish_keeps_the_visibility(hub, saved):
    for is_private in (True, False):
        repository = hub.repository("owner/bridge")
        repository.private = is_private
        repository.commit({})
        publish_bridge(saved, "owner/bridge")
        publish_bridge(saved, "owner/bridge", private=is_private)
        assert hub.repositories.pop("owner/bridge").private is is_private


# What a push owns


def test_a_push_deletes_its_old_files_and_no_others(hub, saved):
    publish_bridge(saved, "owner/bridge")
    repository = hub.repositories["owner/bridge"]
    others = {".gitattributes": b"a", "figures/map.png": b"b", "adapter/README.md": b"c"}
    shard = "adapter/adapter_model-00002-of-00002.safetensors"
    repository.commit({**repository.files, **others, "samples/earlier.png": b"d", shard: b"e"})
    assert "encoder.safetensors" in repository.files
    commits = len(repository.commits)
    change_config(saved, freeze_olmoearth=True)  # its encoder.safetensors is still in the folder
    publish_bridge(saved, "owner/bridge")
    assert len(repository.commits) == commits + 1
    gone = {"encoder.safetensors", "samples/earlier.png", shard}
    assert not gone & set(repository.files)
    assert {name: repository.files[name] for name in others} == others
    assert "samples/a.png" in repository.files
    (saved / "encoder.safetensors").unlink()
    loaded = OlmoEarthVLMBridge.from_pretrained("owner/bridge", "cpu")
    assert loaded.revision == bridge_revision(saved)


def test_a_slow_push_is_one_commit(hub, saved, monkeypatch):
    # After this many seconds `HfApi.upload_folder` commits what has arrived, where Xet is on.
    monkeypatch.setattr("huggingface_hub._upload_pipeline.MAX_COMMIT_INTERVAL", -1)
    publish_bridge(saved, "owner/bridge")
    repository = hub.repositories["owner/bridge"]
    assert len(repository.commits) == 2 and "config.json" in repository.files  # an empty one, ours


def test_saving_removes_parts_of_another_bridge(tiny_bridge, tmp_path):
    tiny_bridge.save_pretrained(tmp_path)
    tiny_bridge.config = replace(tiny_bridge.config, freeze_olmoearth=True)
    tiny_bridge.save_pretrained(tmp_path)
    assert not (tmp_path / "encoder.safetensors").exists()
    (tmp_path / "encoder.safetensors").touch()
    assert tiny_bridge.revision == OlmoEarthVLMBridge.from_pretrained(tmp_path, "cpu").revision


# Models that others can load


def test_a_bridge_on_a_local_model_is_refused(hub, saved, tiny_language, capsys):
    change_config(saved, vlm_model_id=tiny_language, vlm_revision="local")
    assert main(["push", str(saved), "owner/bridge"]) == 2
    said = capsys.readouterr().err
    assert f"the language model in the local folder {tiny_language}" in said
    assert "hf upload OWNER/NAME" in said and "--vlm_model OWNER/NAME" in said
    assert "owner/bridge" not in hub.repositories


def test_a_bridge_on_a_local_olmoearth_is_refused(hub, saved):
    change_config(saved, olmoearth_model_id="weights/nano", olmoearth_revision="local")
    with pytest.raises(ValueError, match=r"OlmoEarth in the local folder weights/nano.*allenai/"):
        publish_bridge(saved, "owner/bridge")
    assert "owner/bridge" not in hub.repositories


def test_the_repository_of_a_local_model_can_be_named(
    hub, saved, tiny_language, tiny_repository, tmp_path
):
    change_config(saved, vlm_model_id=tiny_language, vlm_revision="local")
    name, commit = tiny_repository
    (tmp_path / "results.json").write_text(json.dumps(results_of(saved)))
    publish = ["push", str(saved), "owner/bridge", "--results", str(tmp_path / "results.json")]
    assert main([*publish, "--vlm_model", name]) == 0
    files = hub.repositories["owner/bridge"].files
    config = json.loads(files["config.json"])
    assert (config["vlm_model_id"], config["vlm_revision"]) == (name, commit)
    adapter = json.loads(files["adapter/adapter_config.json"])
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == (name, commit)
    assert ModelCard(files["README.md"].decode()).data.base_model == [name]
    assert not any(tiny_language.encode() in content for content in files.values())
    assert OlmoEarthVLMBridge.from_pretrained("owner/bridge", "cpu").config.vlm_revision == commit


def test_a_repository_of_other_weights_is_refused(hub, saved, tiny_language, tmp_path):
    save_tiny_model(tmp_path / "other", "llama", num_hidden_layers=2, hidden_size=32)
    files = {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    hub.repository("tests/other").commit(files)
    config = change_config(saved, vlm_model_id=tiny_language, vlm_revision="local")
    with pytest.raises(ValueError, match="tests/other does not hold the weights in"):
        publish_bridge(saved, "owner/bridge", vlm_model="tests/other")
    with pytest.raises(ValueError, match="that you may read"):
        publish_bridge(saved, "owner/bridge", vlm_model="tests/nothing")
    gone = replace(config, vlm_model_id=str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="is missing, so it cannot be compared with tests/other"):
        name_base_models(gone, vlm_model="tests/other")
    assert "owner/bridge" not in hub.repositories


def test_a_bridge_on_a_published_model_takes_no_other_name(hub, saved):
    with pytest.raises(ValueError, match=r"^The bridge was built on tests/tiny-llama, not on a/b"):
        publish_bridge(saved, "owner/bridge", vlm_model="a/b")


def test_base_models_are_repositories(saved):
    config = change_config(saved, vlm_model_id="embedded", vlm_revision="b179c952")
    assert [model.repository for model in find_base_models(config)] == [EMBEDDED_REPOSITORY]
    write_bridge_card(saved, "owner/bridge")
    assert ModelCard.load(saved / "README.md").data.base_model == [EMBEDDED_REPOSITORY]
    config = replace(config, olmoearth_model_id="OlmoEarth-v1-Nano", olmoearth_revision="a" * 40)
    found = [(model.repository, model.commit) for model in find_base_models(config)]
    assert found == [(EMBEDDED_REPOSITORY, None), ("allenai/OlmoEarth-v1-Nano", "a" * 40)]


def test_peft_loads_the_adapter_and_its_base_model(hub, tiny_bridge, tiny_repository):
    from peft import AutoPeftModelForCausalLM

    draw_adapter(tiny_bridge, std=0.1)
    tiny_bridge.push_to_hub("owner/bridge")
    tiny = hub.repository(tiny_repository[0])
    tiny.commit({"config.json": b"of a later commit"})
    ours = OlmoEarthVLMBridge.from_pretrained("owner/bridge", "cpu", torch.float32).language.model
    folder = fetch("owner/bridge", ["adapter/*"]).folder  # PEFT seeks the base in a subfolder too
    adapted = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits.float(), ours(ids).logits)


# Results


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"bridge": "a", "split": "val"}', '{"metrics": [{"name": 1}]}', "\udcff"],
)
def test_damaged_results_are_refused(hub, saved, tmp_path, capsys, content):
    path = tmp_path / "results.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert main(["push", str(saved), "owner/bridge", "--results", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"{path} is damaged or holds no results" in said and said.count("\n") == 1
    assert "owner/bridge" not in hub.repositories


def test_results_that_do_not_fit_are_refused(hub, saved, tmp_path, capsys):
    path = tmp_path / "results.json"
    push = ["push", str(saved), "owner/bridge", "--results", str(path)]
    assert main(push) == 2
    assert f"There are no results at {path}" in capsys.readouterr().err
    path.write_text(json.dumps(results_of(saved) | {"bridge": "0123456789ab"}))
    assert main(push) == 2
    said = capsys.readouterr().err
    assert "The results are of bridge 0123456789ab, and this bridge is " in said
    assert "/tmp/earthvlm-" not in said and said.count("\n") == 1
    assert main([*push[:3], "--notes", str(tmp_path / "none.md")]) == 2
    assert "There are no notes at" in capsys.readouterr().err
    shutil.copy(saved / "fusion.safetensors", path)
    assert main([*push[:3], "--notes", str(path)]) == 2
    assert "is no text in UTF-8" in capsys.readouterr().err
    assert "owner/bridge" not in hub.repositories


def test_a_damaged_log_is_named(hub: LocalHub, saved):
    (saved / "training_log.json").write_text("[{")
    with pytest.raises(ValueError, match=r"training_log.json is damaged"):
        publish_bridge(saved, "owner/bridge")
    assert "owner/bridge" not in hub.repositories
