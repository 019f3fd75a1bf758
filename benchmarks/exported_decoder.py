"""A Llama-like language model written down for other runtimes: ONNX Runtime and OpenVINO.

transformers' own modules keep what was read in objects that exporters do not follow; here it goes
in and comes out as one tensor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from earthvlm.decoding import TorchReading


class PlainDecoder(nn.Module):
    """The layers of a Llama; what they read before is a tensor `[layers, 2, heads, P, size]`."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        config = model.config
        self.layers, self.norm, self.head = model.model.layers, model.model.norm, model.lm_head
        self.heads, self.size = config.num_key_value_heads, config.head_dim
        steps = torch.arange(0, config.head_dim, 2) / config.head_dim
        self.register_buffer("turns", config.rope_parameters["rope_theta"] ** -steps)

    def forward(self, vectors: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Read `[1, L, D]` on; logits of what comes next `[1, V]`, and all that was read."""
        before, count = past.shape[3], vectors.shape[1]
        places = torch.arange(before, before + count)
        angles = (places[:, None] * self.turns).repeat(1, 2)
        turn = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
        seen = torch.arange(before + count) <= places[:, None]
        x, kept = vectors, []
        for index, layer in enumerate(self.layers):
            states, attention = layer.input_layernorm(x), layer.self_attn
            queries, keys, values = (
                part(states)[0].view(count, -1, self.size).transpose(0, 1)
                for part in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            keys = torch.cat([past[index, 0], _rotate(keys, turn)], dim=1)
            values = torch.cat([past[index, 1], values], dim=1)
            queries = _rotate(queries, turn).unflatten(0, (self.heads, -1))
            scores = queries @ keys[:, None].transpose(-1, -2) * self.size**-0.5
            weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            mixed = (weights @ values[:, None]).flatten(0, 1).transpose(0, 1).flatten(1)
            x = x + attention.o_proj(mixed[None])
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            kept.append(torch.stack([keys, values]))
        return self.head(self.norm(x[:, -1:]))[:, 0], torch.stack(kept)

    def nothing_read(self) -> Tensor:
        """What is given as `past` at the beginning."""
        weight = self.head.weight
        return weight.new_zeros(len(self.layers), 2, self.heads, 0, self.size)


class ExportedReading(TorchReading):
    """A reading by anything that maps vectors and what was read to logits and what was read."""

    def __init__(self, run: Callable[[Any, Any], tuple[Any, Any]], past: Tensor) -> None:
        self.run, self.past = run, past

    @property
    def length(self) -> int:
        return self.past.shape[3]

    def read(self, vectors: Tensor, both_ways: int = 0) -> Tensor:
        logits, self.past = self.run(vectors.to(self.past.dtype), self.past)
        return logits


def export_onnx(model: LlamaForCausalLM, folder: Path) -> Path:
    """Write the model in float32 as an ONNX file, where there is none yet; return its path."""
    import onnxscript  # noqa: F401, torch writes with it, and says less well that it is missing

    path = folder / "decoder.onnx"
    if path.is_file():
        return path
    decoder = PlainDecoder(copy.deepcopy(model).float()).eval()
    vectors = torch.randn(1, 5, model.config.hidden_size)
    past = torch.randn(len(decoder.layers), 2, decoder.heads, 7, decoder.size)
    torch.onnx.export(
        decoder,
        (vectors, past),
        path,
        input_names=["vectors", "past"],
        output_names=["logits", "read"],
        dynamic_shapes=({1: torch.export.Dim.DYNAMIC}, {3: torch.export.Dim.DYNAMIC}),
        dynamo=True,
        verbose=False,
    )
    return path


def run_by_onnxruntime(path: Path) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """ONNX Runtime on as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(vectors: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        logits, read = session.run(None, {"vectors": vectors.numpy(), "past": past.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(read)

    return run


def run_by_openvino(model: Any) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """OpenVINO on as many threads as torch has; it computes in bfloat16 where the hardware does."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(vectors: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        found = request.infer([vectors.numpy(), past.numpy()])
        logits, read = (np.array(found[place]) for place in range(2))
        return torch.from_numpy(logits), torch.from_numpy(read)

    return run


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys `[heads, L, size]` by their places."""
    first, second = x.chunk(2, dim=-1)
    return x * turn[0] + torch.cat([-second, first], dim=-1) * turn[1]
