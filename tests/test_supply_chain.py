"""Files of others run no code, models are loaded at the commits that are recorded."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.models.olmoearth_loading import load_network
from earthvlm.training.checkpointing import checkpoints
from tests.storage.test_hub import write_olmoearth

ROOT = Path(__file__).parents[1]
# Names that run what a file holds. `torch.load` is allowed with weights_only=True.
RUNS_CODE = {"eval", "exec", "pickle.load", "pickle.loads", "torch.load", "joblib.load"}


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return Path.touch, (self.proof,)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """The file that harmful pickles create; they do where anything unpickles them."""
    pickle.loads(pickle.dumps(Harmful(tmp_path / "control")))
    assert (tmp_path / "control").exists()
    return tmp_path / "proof"


def test_olmoearth_weights_run_no_code(tmp_path, monkeypatch, proof):
    folder = write_olmoearth(tmp_path / "model", "v1.2", monkeypatch)
    torch.save({"encoder": Harmful(proof)}, folder / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth is damaged or does not fit"):
        load_network(str(folder), None)
    assert not proof.exists()


def test_checkpoints_run_no_code(tmp_path, proof):
    torch.save({"optimizer": Harmful(proof)}, tmp_path / "random_0.pt")
    with pytest.raises(ValueError, match=r"random_0\.pt is damaged"):
        checkpoints.read_random_states(tmp_path, 0)
    assert not proof.exists()


def test_pickles_in_a_bridge_are_not_read(saved, proof):
    """PEFT and transformers take these where no safetensors are there."""
    for name in ("adapter/adapter_model.bin", "pytorch_model.bin", "fusion.pth"):
        torch.save(Harmful(proof), saved / name)
    assert isinstance(OlmoEarthVLMBridge.from_pretrained(saved, "cpu"), nn.Module)
    (saved / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        OlmoEarthVLMBridge.from_pretrained(saved, "cpu")
    assert not proof.exists()


@pytest.mark.slow
def test_no_call_runs_what_a_file_holds():
    found = []
    for path in sorted((ROOT / "earthvlm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                found.append(f"{path.relative_to(ROOT)}:{node.value.lineno}: remote code")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in RUNS_CODE:
                given = {each.arg: ast.unparse(each.value) for each in node.keywords}
                if given.get("weights_only") != "True":
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert found == []
