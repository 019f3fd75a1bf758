"""Small random language models with the beginning of the embedded model's vocabulary."""

from __future__ import annotations

import copy
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from earthvlm.models.language.smollm2 import embedded_model_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = 4096  # tokens; reading all 49,152 takes most of the time that making a bridge takes


def save_tiny_model(
    folder: Path, model_type: str, chat_template: str | None = None, **sizes: object
) -> None:
    """Save a random model, by default of one layer of width 64, with a fixed seed.

    model_type: as transformers names it in a config.json ("llama", "phi", "gemma3_text").
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = copy.copy(_short_tokenizer())
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    defaults = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**defaults, **sizes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@cache
def _short_tokenizer() -> PreTrainedTokenizerBase:
    """Shorten the embedded model's tokenizer, which takes half a second to read."""
    from transformers import AutoTokenizer

    source, _ = embedded_model_folder()
    with tempfile.TemporaryDirectory() as folder:
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        _shorten_vocabulary(Path(folder, "tokenizer.json"))
        return AutoTokenizer.from_pretrained(folder)


def _shorten_vocabulary(path: Path) -> None:
    """Keep the first tokens: the special ones, all bytes, and the first merges of byte pairs."""
    tokenizer = json.loads(path.read_text("utf-8"))
    model = tokenizer["model"]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if i < VOCABULARY}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in model["vocab"]]
    path.write_text(json.dumps(tokenizer), "utf-8")
