"""llama.cpp as a decoder state, to compare with: needs llama-cpp-python, which pip compiles.

The language model is written as a GGUF file with matrices in Q8_0, and read back by llama.cpp.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import torch
from torch import Tensor
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
MAX_TOKENS = 4096


class LlamaCpp:
    """A Llama in llama.cpp, with one sequence: states that take turns start from nothing."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        from llama_cpp import llama_cpp

        self.llama, config = llama_cpp, model.config
        self.dim, self.vocab_size = config.hidden_size, config.vocab_size
        llama_cpp.llama_log_set(_silence(llama_cpp), None)
        llama_cpp.llama_backend_init()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            write_gguf(model, path)
            loaded = llama_cpp.llama_model_load_from_file(
                str(path).encode(), llama_cpp.llama_model_default_params()
            )
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = min(MAX_TOKENS, config.max_position_embeddings)
        options.n_threads = options.n_threads_batch = torch.get_num_threads()
        self.context = llama_cpp.llama_init_from_model(loaded, options)
        self.memory = llama_cpp.llama_get_memory(self.context)


class LlamaCppState:
    """A `DecoderState` of one row; starting one ends the one before."""

    pads_drafts = False

    def __init__(self, engine: LlamaCpp) -> None:
        self.engine, self.length = engine, 0
        engine.llama.llama_memory_clear(engine.memory, True)

    def forward(self, vectors: Tensor, bidirectional_prefix: int = 0) -> Tensor:
        """Process `[1, L, D]`; return the logits after the last token, `[1, V]`."""
        if bidirectional_prefix or len(vectors) != 1:
            raise ValueError("llama.cpp decodes one row at a time, with causal attention.")
        llama, values = self.engine.llama, np.ascontiguousarray(vectors[0].float().numpy())
        batch = llama.llama_batch_init(len(values), self.engine.dim, 1)
        try:
            ctypes.memmove(batch.embd, values.ctypes.data, values.nbytes)
            batch.n_tokens = len(values)
            for index in range(len(values)):
                batch.pos[index] = self.length + index
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                batch.logits[index] = index == len(values) - 1
            if llama.llama_decode(self.engine.context, batch):
                raise RuntimeError(f"llama.cpp takes at most {MAX_TOKENS:,} tokens here.")
            logits = llama.llama_get_logits_ith(self.engine.context, -1)
            found = np.ctypeslib.as_array(logits, (self.engine.vocab_size,)).copy()
        finally:
            llama.llama_batch_free(batch)
        self.length += len(values)
        return torch.from_numpy(found)[None]

    def forward_each(self, vectors: Tensor) -> Tensor:
        """Process `[1, L, D]` token by token; return the logits after each, `[1, L, V]`."""
        return torch.stack([self.forward(token[None]) for token in vectors[0].split(1)], dim=1)

    def crop(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self.length = length
        self.engine.llama.llama_memory_seq_rm(self.engine.memory, 0, length, -1)

    def rollback(self, counts: Sequence[int]) -> None:
        """Drop the last tokens of the only row."""
        self.crop(self.length - counts[0])

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep the only row."""

    def release(self) -> None:
        """Do nothing."""


def write_gguf(model: LlamaForCausalLM, path: Path) -> None:
    """Write a model without its tokenizer, which vectors as input and logits do not need."""
    config, decoder = model.config, model.get_decoder()
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
    tensors = {"token_embd": decoder.embed_tokens.weight, "output_norm": decoder.norm.weight}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for index, layer in enumerate(decoder.layers):
        for ours, theirs in LAYER_PARTS.items():
            weight = layer.get_parameter(f"{ours}.weight")
            if theirs in heads:
                weight = _interleave(weight, heads[theirs])
            tensors[f"blk.{index}.{theirs}"] = weight
    for name, tensor in tensors.items():
        values = tensor.detach().float().numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleave(weight: Tensor, heads: int) -> Tensor:
    """Reorder rows as llama.cpp rotates them: neighbouring pairs instead of two halves."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


@cache
def _silence(llama: ModuleType) -> Callable[..., None]:
    """A callback that drops llama.cpp's log; cached, because llama.cpp keeps only its address."""
    return llama.llama_log_callback(lambda *_: None)
