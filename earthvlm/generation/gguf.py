"""Writing a Llama-like language model as a quantized GGUF file for llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from earthvlm.storage.files import write_atomically

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from transformers import LlamaForCausalLM

# A layer's modules: transformers' names to GGUF's.
LAYER_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model: LlamaForCausalLM, path: Path, quantization: str) -> None:
    """Write a model without its tokenizer, which embeddings as input and logits do not need.

    quantization: GGUF's name of how matrices are stored, as in "Q8_0".
    Raises ValueError for a model that is not laid out like Llama.
    """
    import gguf

    config = model.config
    if config.model_type != "llama" or config.attention_bias or config.mlp_bias:
        raise ValueError(
            f"llama.cpp runs Llama-like models here, and this one is a {config.model_type!r} "
            "model: leave the engine out."
        )
    kind = gguf.GGMLQuantizationType[quantization]
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        _write_model(model, temporary, kind)


def _write_model(model: LlamaForCausalLM, path: Path, kind: GGMLQuantizationType) -> None:
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    for name, tensor in _name_tensors(model).items():
        values = tensor.detach().float().cpu().numpy()
        # Vectors stay in float32. The vocabulary's matrix keeps 8 bits: logits depend on it.
        stored = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        if name in ("token_embd", "output") and stored.name.startswith("Q"):
            stored = gguf.GGMLQuantizationType.Q8_0
        stored = _supported_kind(stored, values.shape[-1])
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _supported_kind(kind: GGMLQuantizationType, columns: int) -> GGMLQuantizationType:
    """This quantization, or float32 where rows do not divide into its blocks."""
    import gguf

    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if columns % block == 0 else gguf.GGMLQuantizationType.F32


def _name_tensors(model: LlamaForCausalLM) -> dict[str, Tensor]:
    config, decoder = model.config, model.get_decoder()
    tensors = {"token_embd": decoder.embed_tokens.weight, "output_norm": decoder.norm.weight}
    if not config.tie_word_embeddings:
        tensors["output"] = model.lm_head.weight
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for index, layer in enumerate(decoder.layers):
        for ours, theirs in LAYER_PARTS.items():
            weight = layer.get_parameter(f"{ours}.weight")
            if theirs in heads:
                weight = _interleave(weight, heads[theirs])
            tensors[f"blk.{index}.{theirs}"] = weight
    return tensors


def _interleave(weight: Tensor, heads: int) -> Tensor:
    """Reorder rows as llama.cpp rotates them: neighbouring pairs instead of two halves."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
