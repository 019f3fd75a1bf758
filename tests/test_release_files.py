"""The files of CI, of the container and of a release agree with the project and pass linters."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from earthvlm.models.language.smollm2 import EMBEDDED_PACKAGE, EMBEDDED_VERSION

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
# Where packages, images and builds of torch come from is the installer's choice.
HOSTS = r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|npmjs|docker\.io|ghcr\.io|quay\.io"

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read_steps(path: Path) -> list[dict]:
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"].values()
    return [step for job in jobs for step in (*job.get("steps", ()), job)]


@every_workflow
def test_actions_are_pinned_by_their_hash(path):
    used = [step["uses"] for step in read_steps(path) if "uses" in step]
    assert used
    for name in used:
        assert name.startswith("./") or re.search(r"@([0-9a-f]{40}|sha256:[0-9a-f]{64})$", name)


@every_workflow
def test_workflows_call_targets_of_the_makefile(path):
    for step in read_steps(path):
        for line in step.get("run", "").splitlines():
            if line.startswith("make "):
                named = [word for word in line.split()[1:] if "=" not in word]
                assert named and set(named) <= TARGETS, line
    assert "permissions:\n  contents: read" in path.read_text("utf-8")


def test_ci_runs_every_supported_python():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    for job in ("quick", "install"):
        versions = jobs[job]["strategy"]["matrix"]["python"]
        assert versions[0] in SpecifierSet(PROJECT["requires-python"]) and len(versions) >= 3
    systems = {each["os"] for each in jobs["quick"]["strategy"]["matrix"]["include"]}
    assert systems == {"macos-latest", "windows-latest"}
    assert jobs["full"]["steps"][-1]["run"] == ".ci/run"


def tracked_files() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_setup_says_first_how_much_it_installs(tmp_path):
    """`true` in place of Python makes no environment, so the installation itself fails at once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    for done, sentence in (
        ([], "Setting up .*, once: pip installs [0-9.]+ GB of packages, which takes .* minutes"),
        ([".demo-ready"], "Adding what the tests need to .*, once: [0-9.]+ GB, which takes"),
    ):
        for name in done:
            (tmp_path / name).touch()
        command = ["make", "PYTHON=true", f"VENV={tmp_path}", f"{tmp_path}/.dev-ready"]
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode and re.match(sentence, ended.stdout), ended


def test_the_language_models_version_is_one():
    pattern = re.compile(rf"{EMBEDDED_PACKAGE}==([\w.]+)")
    for name in ("Makefile", "Dockerfile", "docs/quickstart.md", ".github/workflows/ci.yml"):
        assert set(pattern.findall((ROOT / name).read_text("utf-8"))) == {EMBEDDED_VERSION}, name


def test_no_file_names_a_registry():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    own = Path(__file__)
    texts = [path for path in tracked_files() if path.suffix not in (".png", ".tif", ".parquet")]
    for path in texts:
        if path != own and "bundled" not in path.parts:
            found = re.search(HOSTS, path.read_text("utf-8", errors="ignore"))
            assert not found, f"{path}: {found and found[0]}"


def read_lock() -> dict[str, list[Requirement]]:
    """Every pin by its package; one package may have several for several systems."""
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def find_pin(pins: dict[str, list[Requirement]], name: str) -> str:
    """The version that this machine would install."""
    (pin,) = [p for p in pins[canonicalize_name(name)] if p.marker is None or p.marker.evaluate()]
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return specifier.version


def test_the_lock_holds_all_that_is_required():
    pins, seen = read_lock(), set()
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    waiting = [Requirement(line) for line in lines if line and not line.startswith("#")]
    while waiting:
        required = waiting.pop()
        assert find_pin(pins, required.name) in required.specifier, required
        key = (canonicalize_name(required.name), frozenset(required.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            installed = distribution(required.name)
        except PackageNotFoundError:
            continue  # what this machine's torch does not need
        if Version(installed.version).public != find_pin(pins, required.name):
            continue  # another version may need others
        metadata = installed.requires or []
        for line in metadata:
            nested = Requirement(line)
            extras = required.extras or {""}
            if nested.marker is None or any(nested.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(nested)
    if distribution("gradio").version == find_pin(pins, "gradio"):  # not the lowest versions
        assert len(seen) > 60


def test_a_space_has_the_locked_gradio():
    card = yaml.safe_load((ROOT / "README.md").read_text("utf-8").split("---\n")[1])
    assert card["sdk_version"] == find_pin(read_lock(), "gradio")


def test_compose_and_dockerfile_agree():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    app, dockerfile = compose["services"]["app"], (ROOT / "Dockerfile").read_text("utf-8")
    assert set(app["build"]["args"]) <= set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))
    assert app["read_only"] and app["cap_drop"] == ["ALL"] and app["tmpfs"]
    assert "VOLUME /var/cache/earthvlm" in dockerfile
    assert "cache:/var/cache/earthvlm" in app["volumes"]
    assert re.findall(r"^USER (\d+)$", dockerfile, re.MULTILINE) == ["10001"]
    documented = (ROOT / "docs/quickstart.md").read_text("utf-8")
    for name in app["environment"]:
        assert f"`{name}`" in documented, name
    copied = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize(
    "command",
    [
        "zizmor --quiet --offline --no-progress .github",
        "hadolint Dockerfile",
        "shellcheck .ci/run configs/launch.sh",
    ],
    ids=lambda command: command.partition(" ")[0],
)
def test_linters_find_nothing(command):
    name, *arguments = command.split()
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
