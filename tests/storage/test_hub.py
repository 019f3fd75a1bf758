"""Fetching from a Hub, through huggingface_hub's real client and a server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest
import requests
import torch
from huggingface_hub import constants, snapshot_download

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import main
from earthvlm.models.language.language_model import load_language_model
from earthvlm.models.olmoearth import OlmoEarthEncoder
from earthvlm.storage.hub import fetch
from tests.conftest import random_scene, with_and_without_xet
from tests.support.moondream_reference import write_checkpoint
from tests.test_docs import ROOT, code_blocks

pytestmark = pytest.mark.slow


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def write_olmoearth(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as Ai2 publishes it: the training's config.json, all weights in weights.pth."""
    from olmoearth_pretrain_minimal import OlmoEarthPretrain_v1
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.nn.latent_mim import LatentMIMConfig

    configs, build = [], LatentMIMConfig.build
    with monkeypatch.context() as patch:
        patch.setattr(
            LatentMIMConfig,
            "build",
            lambda self: configs.append(self.as_config_dict()) or build(self),
        )
        model = OlmoEarthPretrain_v1(model_size="nano", model_version=version).model
    folder.mkdir(exist_ok=True)
    torch.save(model.state_dict(), folder / "weights.pth")
    seen = {"masking_config": {"strategy_config": {"only_decode_modalities": ["worldcover"]}}}
    (folder / "config.json").write_text(json.dumps({"model": configs[0], "data_loader": seen}))
    return folder


@pytest.fixture
def olmoearth(tmp_path, monkeypatch) -> Path:
    return write_olmoearth(tmp_path, "v1.2", monkeypatch)


def test_a_folder_is_used_as_it_is(tmp_path):
    assert fetch(tmp_path, ["*"]).folder == tmp_path
    assert fetch(tmp_path, ["*"]).revision == "local"


def test_a_repository_is_fetched_at_one_commit(hub):
    old = hub.repository("owner/name").commit({"config.json": b"{}", "code.py": b"import os"})
    hub.repository("owner/name").commit({"config.json": b'{"new": 1}'})
    newest = fetch("owner/name", ["*.json"])
    assert (newest.folder / "config.json").read_bytes() == b'{"new": 1}'
    pinned = fetch("owner/name", ["*.json"], old)
    assert pinned.revision == old
    assert [p.name for p in pinned.folder.iterdir()] == ["config.json"]  # and no code


@with_and_without_xet
def test_cut_download_resumes_and_is_not_repeated(hub):
    content = os.urandom(2_000_000)
    hub.repository("owner/name").commit({"model.safetensors": content})
    hub.cut_after["model.safetensors"] = 1_500_000
    snapshot = fetch("owner/name", ["*.safetensors"])
    assert (snapshot.folder / "model.safetensors").read_bytes() == content
    (_, first, _), (_, resumed, _) = hub.sent
    assert first == 0
    # hf_xet checks a range as a whole, and asks for all of it again
    assert (resumed > 0) == constants.HF_HUB_DISABLE_XET and resumed <= 1_500_000
    fetch("owner/name", ["*.safetensors"])
    assert len(hub.sent) == 2


@pytest.mark.slow
@with_and_without_xet
@pytest.mark.one_setting
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damaged_file_is_fetched_again_and_never_used(hub, name):
    content = os.urandom(100_000)
    hub.repository("owner/name").commit({name: content})
    hub.damaged[name] = 1
    assert (fetch("owner/name", ["*"]).folder / name).read_bytes() == content
    assert len(hub.sent) == 2
    hub.repository("owner/other").commit({name: content[::-1]})
    hub.damaged[name] = 100
    with pytest.raises(ConnectionError) as caught:
        fetch("owner/other", ["*"])
    assert re.search("owner/other (arrived damaged twice|failed)", str(caught.value))
    hub.failing = 503  # what is damaged is not used without the Hub either
    with pytest.raises(ConnectionError):
        fetch("owner/other", ["*"])
    hub.failing, hub.damaged = None, {}
    assert (fetch("owner/other", ["*"]).folder / name).read_bytes() == content[::-1]


@with_and_without_xet
def test_cached_file_is_loaded_without_fetching_it_again(hub):
    commit = hub.repository("owner/name").commit({"model.safetensors": os.urandom(100_000)})
    first = fetch("owner/name", ["*"])
    assert fetch("owner/name", ["*"]) == first and fetch("owner/name", ["*"], commit) == first
    assert len(hub.sent) == 1
    (link,) = first.folder.iterdir()
    blob = link.parent / link.readlink()
    assert blob.is_symlink() != constants.HF_HUB_DISABLE_XET  # shared among repositories by Xet


def test_damaged_shared_file_is_replaced_for_all_repositories(hub):
    content = os.urandom(100_000)
    for name in ("owner/one", "owner/two"):
        hub.repository(name).commit({"model.safetensors": content})
    one, two = (fetch(name, ["*"]).folder / "model.safetensors" for name in hub.repositories)
    assert one.resolve() == two.resolve() and len(hub.sent) == 1
    stored = one.resolve()
    stored.chmod(0o644)
    stored.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the same length
    assert fetch("owner/two", ["*"]).folder / "model.safetensors" == two
    assert one.read_bytes() == two.read_bytes() == content
    assert len(hub.sent) == 2


@with_and_without_xet
def test_damage_before_the_first_check_is_found_offline(hub):
    hub.repository("owner/name").commit({"model.safetensors": os.urandom(100_000)})
    hub.damaged["model.safetensors"] = 1
    folder = snapshot_download("owner/name")  # the client alone compares the length
    hub.failing = 503
    with pytest.raises(ConnectionError):
        fetch("owner/name", ["*"])
    with pytest.raises(ConnectionError, match=r"^model\.safetensors of owner/name is damaged"):
        fetch("owner/name", ["*"], local_files_only=True)
    hub.failing = None
    assert fetch("owner/name", ["*"]).folder == Path(folder)


def test_a_renamed_repository_is_found_by_its_old_name(hub):
    commit = hub.repository("owner/new").commit({"config.json": b"{}"})
    hub.renamed["owner/old"] = "owner/new"
    snapshot = fetch("owner/old", ["*.json"])
    assert snapshot.revision == commit
    assert (snapshot.folder / "config.json").read_bytes() == b"{}"


def test_a_wrong_token_reads_nothing_and_is_not_repeated(hub, monkeypatch):
    hub.repository("owner/name").commit({"config.json": b"{}"})
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ValueError, match=r"^The Hub does not let you read owner/name: log in") as e:
        fetch("owner/name", ["*"])
    assert "hf_wrong" not in str(e.value)


def test_without_the_hub_what_was_fetched_still_loads(hub, monkeypatch):
    hub.repository("owner/name").commit({"config.json": b"{}"})
    first = fetch("owner/name", ["*.json"])
    hub.failing = 503
    assert fetch("owner/name", ["*.json"]) == first


def test_each_refusal_is_one_sentence(hub, monkeypatch):
    hub.repository("owner/name").commit({"config.json": b"{}"})
    hub.repository("owner/gated").commit({"config.json": b"{}"})
    hub.gated.add("owner/gated")
    with pytest.raises(ValueError, match=r"^There is no folder owner/nothing, and no Hub repo"):
        fetch("owner/nothing", ["*"])
    with pytest.raises(ValueError, match=r"^The Hub repository owner/gated is gated: accept"):
        fetch("owner/gated", ["*"])
    with pytest.raises(ValueError, match=r"^The Hub repository owner/name has no revision v9\."):
        fetch("owner/name", ["*"], "v9")
    with pytest.raises(ValueError, match=r"neither a folder nor the id of a Hub repository"):
        fetch("no/such/folder", ["*"])
    hub.failing = 500
    for hub.failing in (404, 409, 429, 500, 503):
        with pytest.raises(ConnectionError) as caught:
            fetch("owner/other", ["*"])
        assert str(caught.value) == (
            "There is no folder owner/other, and the Hub, which may have a repository of that "
            f"name, answered {hub.failing}: try again later."
        )


def test_a_mistyped_folder_is_named_with_one_near_it(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("mine/runs/first", "frist.log"):
        (tmp_path / name).mkdir(parents=True)
    for folder in ("mine/run", "mine/runs/frist"):  # like an id on the Hub, and like none
        meant = "mine/runs" + "/first" * ("frist" in folder)
        with pytest.raises(ValueError, match=rf"; did you mean {re.escape(str(Path(meant)))}\?$"):
            fetch(folder, ["*"])
    hub.failing = 503
    with pytest.raises(ConnectionError, match="try again later; did you mean mine.runs"):
        fetch("mine/run", ["*"])
    for command in (["describe", "a.tif", "--model_path"], ["search", "a lake", "--index"]):
        assert main([*command, "mien"]) == 2
        assert capsys.readouterr().err.endswith("; did you mean mine?\n")


def test_the_tests_hub_stores_exactly_what_it_receives(hub):
    content = os.urandom(1000)
    hub.repository("owner/name").commit({"model.safetensors": content})
    files, folder = hub.repositories["owner/name"].files, hub.objects.folder
    digest = hashlib.sha256(content).hexdigest()
    assert files.digests == {"model.safetensors": digest}
    assert [path.name for path in folder.iterdir()] == [digest]
    assert (folder / digest).read_bytes() == content
    refused = requests.put(f"{hub.url}/objects/{digest}", content[:-1], timeout=30)
    assert refused.status_code == 400 and (folder / digest).read_bytes() == content
    (folder / digest).write_bytes(content[:-1])
    with pytest.raises(ValueError, match="the disk holds another content"):
        files["model.safetensors"]


def test_moondream_loads_its_pinned_revision_and_tokenizer(hub, tmp_path):
    write_checkpoint(tmp_path, "2024")
    repository = hub.repository("vikhyatk/moondream2")
    pinned = repository.commit(_files(tmp_path), "2024-08-26")
    repository.commit({"config.json": b"{}"})  # later revisions are other models
    language = load_language_model("vikhyatk/moondream2")
    assert language.revision == pinned
    assert language.model(torch.tensor([[1, 2]])).logits.shape[1] == 2


def test_the_2025_tokenizer_comes_from_its_own_repository(hub, tmp_path):
    write_checkpoint(tmp_path, "2025")
    files = _files(tmp_path)
    hub.repository("moondream/starmie-v1").commit({"tokenizer.json": files.pop("tokenizer.json")})
    hub.repository("vikhyatk/moondream2").commit(files, "2025-06-21")
    language = load_language_model("vikhyatk/moondream2", revision="2025-06-21")
    assert language.stop_ids == [0]


def test_olmoearth_comes_by_its_model_id(hub, olmoearth):
    commit = hub.repository("allenai/OlmoEarth-v1_2-Nano").commit(_files(olmoearth))
    encoder = OlmoEarthEncoder("OlmoEarth-v1_2-Nano").eval()
    assert encoder.revision == commit
    assert not any("decoder" in name for name, _ in encoder.named_parameters())
    expected = torch.load(olmoearth / "weights.pth")
    for name, tensor in encoder.network.state_dict().items():
        assert torch.equal(tensor, expected[f"encoder.{name}"])


def test_documented_defaults_load_at_their_commits(hub, tmp_path, monkeypatch):
    """The example of docs/models.md as printed, but for its GPU."""
    (tmp_path / "moondream").mkdir()
    write_checkpoint(tmp_path / "moondream", "2024")
    olmoearth = hub.repository("allenai/OlmoEarth-v1-Nano")
    moondream = hub.repository("vikhyatk/moondream2")
    first = olmoearth.commit(_files(write_olmoearth(tmp_path / "olmoearth", "v1", monkeypatch)))
    pinned = moondream.commit(_files(tmp_path / "moondream"), "2024-08-26")
    example = code_blocks(ROOT / "docs" / "models.md", "python")[0].replace('"cuda"', '"cpu"')
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/models.md", "exec"), {})
    assert not (tmp_path / "untrained" / "encoder.safetensors").exists()

    olmoearth.commit({"config.json": b"{}", "weights.pth": b""})  # a later one, which is not taken
    moondream.commit({"config.json": b"{}"}, "2024-08-26")
    again = OlmoEarthVLMBridge.from_pretrained("untrained", device="cpu")
    assert (again.config.olmoearth_revision, again.config.vlm_revision) == (first, pinned)
    assert again.encoder.band_sets == 3
    assert again.generate(random_scene(), "Is there water?", max_length=3) is not None


def test_a_configuration_without_recorded_inputs_loads(olmoearth):
    recorded = OlmoEarthEncoder(str(olmoearth)).eval()
    config = json.loads((olmoearth / "config.json").read_text())
    (olmoearth / "config.json").write_text(json.dumps({"model": config["model"]}))
    plain = OlmoEarthEncoder(str(olmoearth)).eval()
    assert plain.revision == "local"
    scene = [plain.prepare(random_scene())]
    with torch.no_grad():
        torch.testing.assert_close(plain(scene).tokens, recorded(scene).tokens)


def test_a_damaged_checkpoint_of_olmoearth_is_named(olmoearth):
    weights = olmoearth / "weights.pth"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"weights\.pth is damaged or does not fit"):
        OlmoEarthEncoder(str(olmoearth))
    torch.save({"encoder.nothing": torch.zeros(1)}, weights)
    with pytest.raises(ValueError, match=r"weights\.pth is damaged or does not fit"):
        OlmoEarthEncoder(str(olmoearth))
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks weights\.pth"):
        OlmoEarthEncoder(str(olmoearth))


def test_a_download_from_the_command_line(hub, tmp_path, capfd):
    write_checkpoint(tmp_path, "2024")
    hub.repository("vikhyatk/moondream2").commit(_files(tmp_path), "2024-08-26")
    assert main(["download", "moondream2"]) == 0
    assert (Path(capfd.readouterr().out.strip()) / "model.safetensors").is_file()
    assert main(["download", "olmoearth", "--model", "OlmoEarth-v1-Nano"]) == 2
    missing = capfd.readouterr().err
    assert missing.count("\n") == 1 and "no Hub repository of that name" in missing
