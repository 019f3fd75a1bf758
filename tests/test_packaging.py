"""What is installed: a light import, agreeing lists of dependencies, a wheel with its data."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import earthvlm
from earthvlm.publishing import space
from tests.support.generated_chatearthnet import write_generated_chatearthnet

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


def test_the_command_line_starts_without_any_package():
    """So that `earthvlm doctor` can name the missing ones."""
    found = run_python(
        "import sys, earthvlm.cli; print(*{n.partition('.')[0] for n, m in sys.modules.items()"
        " if 'site-packages' in (getattr(m, '__file__', None) or '')})"
    ).split()
    assert set(found) <= {"_distutils_hack", "_virtualenv", "sitecustomize"}


def test_public_names_load_on_first_use():
    import earthvlm.bridge.model
    import earthvlm.scenes.scene
    import earthvlm.search.index
    import earthvlm.serving.pipelines
    import earthvlm.serving.scene_embedder

    assert earthvlm.OlmoEarthVLMBridge is earthvlm.bridge.model.OlmoEarthVLMBridge
    assert earthvlm.Scene is earthvlm.scenes.scene.Scene
    assert earthvlm.SceneIndex is earthvlm.search.index.SceneIndex
    assert earthvlm.SceneEmbedder is earthvlm.serving.scene_embedder.SceneEmbedder
    assert earthvlm.pipeline is earthvlm.serving.pipelines.pipeline
    classes = ["OlmoEarthVLMBridge", "Scene", "SceneEmbedder", "SceneIndex"]
    assert dir(earthvlm) == [*classes, "__version__", "pipeline"]
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


@pytest.mark.parametrize(
    ("door", "command"),
    [
        ("app.py", "app"),
        ("train_accelerate.py", "train"),
        ("hub/embed_chatearthnet.py", "embed-dataset"),
        ("hub/publish_space.py", "publish-space"),
        ("earthvlm/train.py", "train"),
    ],
)
def test_scripts_are_doors_to_the_commands(door, command, monkeypatch):
    called = []
    monkeypatch.setattr("earthvlm.cli.main", lambda arguments: called.append(arguments) or 7)
    monkeypatch.setattr(sys, "argv", [door, "--flag"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / door), run_name="__main__")
    assert ended.value.code == 7
    assert called == [[command] if command == "app" else [command, "--flag"]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_a_wheel_holds_the_package_with_its_data(wheel):
    assert wheel.name == f"earthvlm-{earthvlm.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"earthvlm-{earthvlm.__version__}.dist-info"
        scripts = archive.read(f"{info}/entry_points.txt").decode()
        packed = {name: archive.read(name) for name in names if "/publishing/space/" in name}
    assert "earthvlm = earthvlm.cli:main" in scripts
    assert f"{info}/licenses/LICENSE" in names
    files = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "earthvlm").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert files <= names
    assert all(name.startswith(("earthvlm/", info)) for name in names)
    for name in (*space.FILES, space.README, space.LOCK):
        assert packed[f"earthvlm/publishing/space/{name}"] == (ROOT / name).read_bytes()


def install(wheel: Path, folder: Path) -> Path:
    """A virtual environment with the wheel and this one's other packages; returns its Python.

    A folder that a .pth file names is searched, but its own .pth files are not read: an editable
    installation of this repository stays out.
    """
    venv.create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "others.pth").write_text(sysconfig.get_path("purelib"))
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True, timeout=120)
    return python


# Runs commands one after the other, so that the libraries are imported once.
COMMANDS = """
import contextlib, io, json, sys
from earthvlm.cli import main

printed = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(arguments) == 0, arguments
    printed.append(output.getvalue())
print(json.dumps(printed))
"""


@pytest.mark.slow
@pytest.mark.end_to_end
def test_an_installed_wheel_needs_no_repository(wheel, tmp_path, tiny_language):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    python = install(wheel, tmp_path / "environment")
    folder = tmp_path / "Größe und Maß"  # with spaces and umlauts
    folder.mkdir()

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert earthvlm.__version__ in run(python.with_name("earthvlm"), "--version")
    package = next((tmp_path / "environment").rglob("site-packages")) / "earthvlm"
    scene = next((package / "bundled" / "embeddings" / "scenes").glob("finland*.tif"))
    shutil.copy(scene, folder / "Wälder.tif")
    write_generated_chatearthnet(folder / "data", train=2, val=1)
    training = f"--vlm_model {tiny_language} --olmoearth_model random-v1.2-nano --device cpu"
    training += " --max_steps 1 --batch_size 2 --num_workers 0 --data_dir data --output_dir run"
    commands = [
        ["doctor"],
        ["describe", "Wälder.tif", "--max_length", "8", "--json"],
        ["search", "a lake", "--top_k", "1"],
        ["index", ".", "--output", "mein Index"],
        ["search", "forest", "--index", "mein Index", "--top_k", "1"],
        ["publish-space", "owner/space", "--output", "space"],
        ["train", *training.split()],
        ["describe", "Wälder.tif", "--json", "--model_path", "run"],
    ]
    checked, described, found, _, found_here, _, _, by_run = json.loads(
        run(python, "-c", COMMANDS, json.dumps(commands))
    )
    assert str(tmp_path / "environment") in checked
    assert json.loads(described)["answer"] and "answer" in json.loads(by_run)
    assert found and "Wälder" in found_here
    for name in ("app.py", "requirements.txt", "README.md", "earthvlm/ui/app.py"):
        assert (folder / "space" / name).is_file()
