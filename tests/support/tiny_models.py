"""Small random language models with the embedded model's tokenizer."""

from __future__ import annotations

from pathlib import Path

from earthvlm.models.smollm2 import embedded_model_folder


def save_tiny_model(
    folder: Path, model_type: str, chat_template: str | None = None, **sizes: object
) -> None:
    """Save a random model, by default of one layer of width 64, with a fixed seed.

    model_type: as transformers names it in a config.json ("llama", "phi", "gemma3_text").
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source, _ = embedded_model_folder()
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    defaults = {
        "vocab_size": len(tokenizer),
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
