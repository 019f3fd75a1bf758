"""Decoding single answers on CPUs with ONNX Runtime and 8-bit weights.

Where one token is decoded at a time, a CPU waits for memory and for Python, which starts hundreds
of operations a token. ONNX Runtime runs all of them in one call and reads half as many bytes as in
bfloat16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime import InferenceSession, IOBinding, OrtValue, SessionOptions
from torch import Tensor

from earthvlm.generation.onnx_graph import GraphWriter, fits_graph
from earthvlm.models.threads import most_threads
from earthvlm.scenes.memory import trim_memory

ROOM = 128  # tokens by which full buffers grow each time they are copied


class OnnxDecoder:
    """A language model in ONNX Runtime; its weights are copied.

    Args:
        model: one that `fits`.
    """

    def __init__(self, model: Any) -> None:
        options = SessionOptions()
        options.intra_op_num_threads = most_threads()
        # Threads that wait spin for the microseconds between two operations and then sleep. On idle
        # cores that is as fast as spinning on; next to a busy process it is 1.5 times as fast.
        options.add_session_config_entry("session.intra_op.spin_duration_us", "10")
        # Otherwise it would keep the memory of the longest prompt.
        options.enable_cpu_mem_arena = False
        # From files, weights are in memory once; those of a graph in memory would be twice. Windows
        # deletes no file that is in use.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = GraphWriter(model, Path(folder)).path
            self.session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
        trim_memory()
        self.layers = model.config.num_hidden_layers
        self.buffer = model.config.num_key_value_heads, model.model.layers[0].self_attn.head_dim

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether a model can be decoded so: on a CPU, laid out like Llama, adapters merged."""
        return model.device.type == "cpu" and fits_graph(model)


class OnnxDecoderState:
    """A `DecoderState` of one row."""

    pads_drafts = False

    def __init__(self, decoder: OnnxDecoder) -> None:
        self.decoder = decoder
        self._length = 0
        self._binding: IOBinding | None = None
        # Keys and values of each layer in turn, `[2 * layers, key heads, room, head width]`.
        heads, width = decoder.buffer
        self._buffers = torch.zeros(2 * decoder.layers, heads, 0, width)

    @property
    def length(self) -> int:
        """The number of tokens in the state."""
        return self._length

    def forward(self, vectors: Tensor, bidirectional_prefix: int = 0) -> Tensor:
        """Process `[1, L, D]`; return the logits after the last token, `[1, V]`."""
        if bidirectional_prefix:
            raise ValueError("ONNX Runtime has causal attention only here.")
        return self._forward(vectors, vectors.shape[1] - 1)[:, 0]

    def forward_each(self, vectors: Tensor) -> Tensor:
        """Process `[1, L, D]`; return the logits after each token, `[1, L, V]`."""
        return self._forward(vectors, 0)

    def _forward(self, vectors: Tensor, first: int) -> Tensor:
        total = self._length + vectors.shape[1]
        binding = self._bind(total)
        inputs = {
            "vectors": vectors.detach().float().contiguous().numpy(),
            "last": np.array([total - 1], np.int32),
            "total": np.array([total], np.int32),
            "first": np.array([first], np.int64),
        }
        for name, values in inputs.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(values))
        binding.bind_output("logits", "cpu")
        self.decoder.session.run_with_iobinding(binding)
        self._length = total
        return torch.from_numpy(binding.get_outputs()[-1].numpy())

    def crop(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self._length = length

    def rollback(self, counts: Sequence[int]) -> None:
        """Drop the last tokens of the only row."""
        self.crop(self._length - counts[0])

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep the only row."""

    def release(self) -> None:
        """Give back the room for new tokens."""
        self._resize(self._length)

    def _bind(self, total: int) -> IOBinding:
        """The buffers, with room for as many tokens, bound to the graph's inputs and outputs."""
        if total > self._buffers.shape[2]:
            self._resize(total + ROOM)
        if self._binding is None:
            self._binding = self.decoder.session.io_binding()
            for index, buffer in enumerate(self._buffers):
                name = f"{('keys', 'values')[index % 2]}_{index // 2}"
                place = "cpu", 0, np.float32, [1, *buffer.shape], buffer.data_ptr()
                self._binding.bind_input(f"past_{name}", *place)
                self._binding.bind_output(name, *place)
        return self._binding

    def _resize(self, room: int) -> None:
        shape = list(self._buffers.shape)
        shape[2], kept = room, min(room, self._length)
        buffers = torch.zeros(shape)
        buffers[:, :, :kept] = self._buffers[:, :, :kept]
        self._buffers, self._binding = buffers, None
