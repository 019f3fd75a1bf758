"""Loading language models, with their tokenizer and prompt format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from earthvlm.models.adapter_config import PEFT_CONFIG_FILE
from earthvlm.models.int8 import quantize_all
from earthvlm.models.language.chat_templates import (
    FAMILIES,
    MOONDREAM_2025,
    LanguageFamily,
    Message,
    Prompt,
    write_prompt,
)
from earthvlm.models.language.moondream2 import (
    MOONDREAM_ID,
    MOONDREAM_REVISION,
    is_moondream,
    load_moondream_text,
    load_moondream_tokenizer,
    load_moondream_vision,
)
from earthvlm.models.language.smollm2 import EMBEDDED_MODEL_ID, embedded_model_folder
from earthvlm.models.loading import LOADING
from earthvlm.storage.hub import LOCAL_REVISION, fetch
from earthvlm.storage.tensors import TensorFolder, check_memory, has_bfloat16

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from earthvlm.models.language.moondream2_vision import VisionTower

# The files that are downloaded: weights, configuration, tokenizer; never code or pickles.
LANGUAGE_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer and prompt format.

    Attributes:
        model: of transformers.
        tokenizer: of the same revision.
        family: the prompt format and the layers that LoRA adapts.
        id: the Hub id or folder it was loaded from.
        revision: of its weights.
        vision: its own vision tower, where that was loaded.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: LanguageFamily
    id: str
    revision: str
    vision: VisionTower | None = None

    @property
    def dim(self) -> int:
        """The width of its word embeddings, `D_text`."""
        return self.model.get_input_embeddings().embedding_dim

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer."""
        generation = self.model.generation_config.eos_token_id
        generation = generation if isinstance(generation, list) else [generation]
        ids = {i for i in (*generation, self.tokenizer.eos_token_id) if i is not None}
        return sorted(ids)

    @property
    def context(self) -> int:
        """The maximum number of tokens, those of the answer included."""
        return self.model.config.get_text_config().max_position_embeddings

    def measure_embedding_std(self) -> float:
        """The standard deviation of the first 1024 tokens' embeddings."""
        layer = self.model.get_input_embeddings()
        ids = torch.arange(min(1024, layer.num_embeddings), device=self.model.device)
        # Through the layer, not from its weights: Gemma scales its embeddings.
        return layer(ids).detach().float().std().item()

    def embed(self, ids: Tensor) -> Tensor:
        """Look up the embeddings of token ids: `[...]` to `[..., D_text]`."""
        return self.model.get_input_embeddings()(ids)

    def embed_around(self, ids: Tensor, scene: Tensor, at: int) -> Tensor:
        """Embed token ids `[..., L]` and insert a scene `[..., S, D_text]` at index `at`.

        Returns `[..., L + S, D_text]`.
        """
        words = self.embed(ids)
        parts = words[..., :at, :], scene.to(words.dtype), words[..., at:, :]
        return torch.cat(parts, dim=-2)

    def encode(self, messages: Sequence[Message], context: str = "") -> Prompt:
        """Tokenize a conversation in the model's prompt format; see `write_prompt`."""
        return write_prompt(self.tokenizer, self.family, messages, context)


def load_language_model(
    id_or_path: str,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    with_vision: bool = False,
) -> LanguageModel:
    """Load a causal language model.

    Args:
        id_or_path: "embedded", a Hub id or a folder.
        dtype: by default bfloat16 where the hardware computes in it, else float32; torch.int8
            stores the matrices in 8 bits and computes in the default, for inference only.
        device: the CPU by default.
        revision: of a Hub repository; by default `MOONDREAM_REVISION` for Moondream2, and the
            newest for others.
        with_vision: also load Moondream2's vision tower.

    Raises:
        ValueError: for an architecture that is not in `FAMILIES`, an unknown id, and damaged,
            missing or unexpected weights.
        FileNotFoundError: where the embedded model's package or a file is missing.
        ConnectionError: where the Hub cannot be reached.
        MemoryError: where the model does not fit.
    """
    device = torch.device(device or "cpu")
    in_int8 = dtype == torch.int8
    dtype = preferred_dtype(device) if in_int8 else dtype or preferred_dtype(device)
    if id_or_path == EMBEDDED_MODEL_ID:
        folder, revision = embedded_model_folder()
    else:
        if id_or_path == MOONDREAM_ID and revision in (None, ""):
            revision = MOONDREAM_REVISION
        snapshot = fetch(id_or_path, LANGUAGE_FILES, revision)
        folder, revision = snapshot.folder, snapshot.revision
    if is_moondream(folder):
        return _load_moondream(id_or_path, folder, revision, dtype, device, with_vision, in_int8)
    if with_vision:
        raise ValueError(f"{id_or_path!r} has no vision tower: leave use_vlm_vision out.")
    return _load_by_transformers(id_or_path, folder, revision, dtype, device, in_int8)


def _load_by_transformers(
    name: str,
    folder: Path,
    revision: str,
    dtype: torch.dtype,
    device: torch.device,
    in_int8: bool,
) -> LanguageModel:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if (folder / PEFT_CONFIG_FILE).is_file():
        # transformers would load another model, the one that the adapter names, and adapt it.
        raise ValueError(
            f"{name!r} holds a PEFT adapter: merge it into its language model with PEFT's "
            "merge_and_unload, save that, and give its folder."
        )
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name!r} is no language model here: give 'embedded', a folder with config.json "
            "and weights, or the id of a Hub repository this machine can reach."
        ) from error
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"{name!r} is a {config.model_type!r} model, which has no prompt format here; "
            f"supported types are {', '.join(sorted(FAMILIES))}."
        )
    check_memory(TensorFolder(folder).bytes_in(dtype), device, f"The language model {name!r}")
    with LOADING:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            names = sorted(str(key) for key in report[kind])
            raise ValueError(f"{name!r} has {kind.replace('_', ' ')}: {', '.join(names[:8])}.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if in_int8:
        quantize_all(model)
    model = model.to(device).eval()
    return LanguageModel(model, tokenizer, FAMILIES[config.model_type], name, revision)


def _load_moondream(
    name: str,
    folder: Path,
    revision: str,
    dtype: torch.dtype,
    device: torch.device,
    with_vision: bool,
    in_int8: bool,
) -> LanguageModel:
    tokenizer = load_moondream_tokenizer(folder, from_hub=revision != LOCAL_REVISION)
    model = load_moondream_text(folder, dtype, device, in_int8)
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    vision = load_moondream_vision(folder, dtype, device) if with_vision else None
    family = MOONDREAM_2025 if tokenizer.eos_token_id == 0 else FAMILIES["phi"]
    return LanguageModel(model, tokenizer, family, name, revision, vision)


def preferred_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it natively, else float32."""
    return torch.bfloat16 if has_bfloat16(device) else torch.float32
