"""What is installed: a light import, agreeing lists of dependencies, a wheel with its data."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import earthvlm

ROOT = Path(earthvlm.__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Each takes tenths of seconds or more to import.
HEAVY = ("torch", "transformers", "gradio", "rasterio", "numpy", "PIL", "pyarrow")


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_loads_no_model_library():
    loaded = run_python("import sys, earthvlm, earthvlm.cli; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_public_names_load_on_first_use():
    import earthvlm.bridge.model
    import earthvlm.scenes.scene
    import earthvlm.search.index

    assert earthvlm.OlmoEarthVLMBridge is earthvlm.bridge.model.OlmoEarthVLMBridge
    assert earthvlm.Scene is earthvlm.scenes.scene.Scene
    assert earthvlm.SceneIndex is earthvlm.search.index.SceneIndex
    assert dir(earthvlm) == ["OlmoEarthVLMBridge", "Scene", "SceneIndex", "__version__"]
    with pytest.raises(AttributeError, match="'Image'"):
        earthvlm.Image  # noqa: B018


def test_the_installed_version_is_this_one():
    try:
        installed = version("earthvlm")
    except PackageNotFoundError:
        pytest.skip("earthvlm is not installed here, only imported")
    assert installed == earthvlm.__version__


def read_requirements() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): r for r in found}


def test_requirements_are_those_of_the_project_with_torch_pinned():
    project = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
    project = {canonicalize_name(r.name): r for r in project}
    installed = read_requirements()
    assert installed.keys() == project.keys()
    for name in installed.keys() - {"torch"}:
        assert installed[name].specifier == project[name].specifier, name
    (pin,) = installed["torch"].specifier
    assert pin.operator == "=="
    assert pin.version in project["torch"].specifier


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == earthvlm.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]


def test_front_matter_is_what_a_space_accepts():
    _, front_matter, text = (ROOT / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front_matter)
    assert card["sdk"] == "gradio"
    assert card["license"] == "apache-2.0"
    assert len(card["short_description"]) <= 60
    assert card["sdk_version"] in read_requirements()["gradio"].specifier
    assert isinstance(card["python_version"], str)
    assert card["app_file"] == "app.py"
    assert text.lstrip().startswith("# earthvlm\n")


@pytest.mark.slow
def test_a_wheel_holds_the_package_with_its_data(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    (path,) = tmp_path.glob("*.whl")
    assert path.name == f"earthvlm-{earthvlm.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        info = f"earthvlm-{earthvlm.__version__}.dist-info"
        scripts = wheel.read(f"{info}/entry_points.txt").decode()
    assert "earthvlm = earthvlm.cli:main" in scripts
    assert f"{info}/licenses/LICENSE" in names
    files = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "earthvlm").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert files <= names
    assert all(name.startswith(("earthvlm/", info)) for name in names)
