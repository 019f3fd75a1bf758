"""Writing a Llama-like language model as a graph of ONNX Runtime, with weights in 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

# Operators of ONNX Runtime, which compute what takes several of ONNX.
RUNTIME = "com.microsoft"
# Weights that share a scale, along the inputs of a matrix.
BLOCK = 32
WEIGHTS_FILE = "weights"
ALIGNMENT = 4096  # bytes: each tensor begins with a page, so that the file can be mapped
ZERO = 128  # stands for 0 among unsigned 8-bit integers
ROUND_ACTIVATIONS = 4  # MatMulNBits rounds what it multiplies to 8 bits too, with such scales
MODEL_TYPES = ("llama", "qwen2")
ROTARY_TYPES = ("default", "linear", "llama3")  # those whose angles do not depend on the length


def fits_graph(model: Any) -> bool:
    """Whether `GraphWriter` can write a model of transformers: laid out like Llama, merged."""
    config = model.config
    if config.model_type not in MODEL_TYPES or config.hidden_act != "silu":
        return False
    if getattr(config, "use_sliding_window", False) or getattr(config, "mlp_bias", False):
        return False
    if config.rope_parameters["rope_type"] not in ROTARY_TYPES:
        return False
    attention = model.model.layers[0].self_attn
    widths = config.hidden_size, config.intermediate_size, attention.o_proj.in_features
    parts = attention.q_proj, model.model.layers[0].mlp.down_proj, model.get_output_embeddings()
    return not any(width % BLOCK for width in widths) and all(type(p) is nn.Linear for p in parts)


class GraphWriter:
    """Writes the graph into a folder, as `path`, and the weights next to it, one by one.

    Its inputs, for L new tokens: `vectors` `[1, L, D]`, `last` `[1]`, the index of the last token,
    `total` `[1]`, the number of all tokens, `first` `[1]`, the first new token whose logits are
    wanted, and for each layer `past_keys_N` and `past_values_N`, buffers of
    `[1, key heads, room, head width]`. Its outputs: `logits` `[1, L - first, V]`, and the buffers
    with the new tokens, `keys_N` and `values_N`, which may be the same memory.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._epsilon = model.config.rms_norm_eps
        self.path = folder / "model.onnx"
        with (folder / WEIGHTS_FILE).open("wb") as self._file:
            onnx.save(self._write(model), self.path)

    def _write(self, model: Any) -> onnx.ModelProto:
        config, decoder = model.config, model.model
        attention = decoder.layers[0].self_attn
        positions = torch.arange(config.max_position_embeddings)[None]
        tables = decoder.rotary_emb(torch.zeros(1), positions)
        for name, table in zip(("cosine", "sine"), tables, strict=True):
            self._add_constant(name, table[0, :, : attention.head_dim // 2])
        buffer = [1, config.num_key_value_heads, "room", attention.head_dim]
        self._add_input("vectors", TensorProto.FLOAT, [1, "new", config.hidden_size])
        for name in ("last", "total"):
            self._add_input(name, TensorProto.INT32, [1])
        self._add_input("first", TensorProto.INT64, [1])
        sum_of, added = "vectors", None
        for number, layer in enumerate(decoder.layers):
            for kind in ("keys", "values"):
                self._add_input(f"past_{kind}_{number}", TensorProto.FLOAT, buffer)
                self._add_output(f"{kind}_{number}", buffer)
            sum_of, normed = self._normalize(f"in_{number}", sum_of, added, layer.input_layernorm)
            mixed = self._attend(number, normed, layer.self_attn, config)
            sum_of, normed = self._normalize(
                f"mid_{number}", sum_of, mixed, layer.post_attention_layernorm
            )
            added = self._apply_mlp(number, normed, layer.mlp)
        _, normed = self._normalize("end", sum_of, added, decoder.norm)
        self._add_constant("end_of_all", torch.tensor([2**40]))
        self._add_constant("axis", torch.tensor([1]))
        wanted = self._add("Slice", [normed, "first", "end_of_all", "axis"], "wanted", domain="")
        self._multiply("logits", wanted, model.get_output_embeddings())
        self._add_output("logits", [1, "wanted", config.vocab_size])
        graph = helper.make_graph(
            self._nodes, "language_model", self._inputs, self._outputs, self._initializers
        )
        versions = [helper.make_opsetid("", 17), helper.make_opsetid(RUNTIME, 1)]
        return helper.make_model(graph, opset_imports=versions, ir_version=10)

    def _attend(self, number: int, normed: str, attention: Any, config: Any) -> str:
        parts = attention.q_proj, attention.k_proj, attention.v_proj
        joined = self._multiply(f"joined_{number}", normed, *parts)
        names = [f"past_keys_{number}", f"past_values_{number}", "last", "total", "cosine", "sine"]
        mixed = self._add(
            "GroupQueryAttention",
            [joined, "", "", *names],
            f"mixed_{number}",
            f"keys_{number}",
            f"values_{number}",
            num_heads=config.num_attention_heads,
            kv_num_heads=config.num_key_value_heads,
            scale=float(attention.scaling),
            do_rotary=1,
        )
        return self._multiply(f"attended_{number}", mixed, attention.o_proj)

    def _apply_mlp(self, number: int, normed: str, mlp: Any) -> str:
        gate = self._multiply(f"gate_{number}", normed, mlp.gate_proj)
        up = self._multiply(f"up_{number}", normed, mlp.up_proj)
        # With alpha 1 it is SiLU.
        gate = self._add("QuickGelu", [gate], f"open_{number}", alpha=1.0)
        opened = self._add("Mul", [gate, up], f"opened_{number}", domain="")
        return self._multiply(f"down_{number}", opened, mlp.down_proj)

    def _normalize(self, name: str, sum_of: str, added: str | None, norm: Any) -> tuple[str, str]:
        """Add to what is carried from layer to layer; return its name, and that of its norm."""
        weight = self._add_constant(f"{name}_weight", norm.weight)
        if added is None:
            normed = self._add(
                "SimplifiedLayerNormalization",
                [sum_of, weight],
                name,
                domain="",
                axis=-1,
                epsilon=self._epsilon,
                stash_type=1,
            )
            return sum_of, normed
        outputs = [name, "", "", f"{name}_sum"]
        kind = "SkipSimplifiedLayerNormalization"
        self._add(kind, [sum_of, added, weight], *outputs, epsilon=self._epsilon)
        return f"{name}_sum", name

    def _multiply(self, name: str, x: str, *layers: Any) -> str:
        """Multiply by the matrices of linear layers, one below the other."""
        rounded = zip(*(_round(layer.weight) for layer in layers), strict=True)
        integers, scales = (torch.cat(parts) for parts in rounded)
        self._add_constant(f"{name}_integers", integers)
        self._add_constant(f"{name}_scales", scales)
        inputs = [x, f"{name}_integers", f"{name}_scales"]
        if layers[0].bias is not None:
            bias = torch.cat([layer.bias for layer in layers])
            inputs += ["", "", self._add_constant(f"{name}_bias", bias)]
        rows, blocks, _ = integers.shape
        return self._add(
            "MatMulNBits",
            inputs,
            name,
            N=rows,
            K=blocks * BLOCK,
            bits=8,
            block_size=BLOCK,
            accuracy_level=ROUND_ACTIVATIONS,
        )

    def _add(
        self, kind: str, inputs: list[str], *outputs: str, domain: str = RUNTIME, **options: Any
    ) -> str:
        self._nodes.append(helper.make_node(kind, inputs, list(outputs), domain=domain, **options))
        return outputs[0]

    def _add_constant(self, name: str, values: Tensor) -> str:
        values = values.detach().contiguous()
        array = (values.float() if values.is_floating_point() else values).numpy()
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        place = {"location": WEIGHTS_FILE, "offset": self._file.tell(), "length": array.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._file.write(array.data)
        self._initializers.append(tensor)
        return name

    def _add_input(self, name: str, kind: int, shape: list[Any]) -> None:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))

    def _add_output(self, name: str, shape: list[Any]) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _round(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round `[out, in]` to unsigned integers `[out, blocks, BLOCK]`, and scales `[out, blocks]`."""
    blocks = weight.detach().float().unflatten(1, (-1, BLOCK))
    scales = (blocks.abs().amax(2, keepdim=True) / (ZERO - 1)).clamp_(min=1e-12)
    return (blocks / scales).round_().add_(ZERO).to(torch.uint8), scales[..., 0]
