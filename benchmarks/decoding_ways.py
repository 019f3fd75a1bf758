"""Ways to decode that `benchmarks.decoding` compares: each is what starts a reading, by its name.

Those of llama.cpp need the extra `llama`. Others need packages that nothing else here uses:

    pip install torchao onnx onnxscript onnxruntime openvino nncf
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, StaticCache

from benchmarks.exported_decoder import (
    ExportedReading,
    PlainDecoder,
    export_onnx,
    run_by_onnxruntime,
    run_by_openvino,
)
from earthvlm import OlmoEarthVLMBridge
from earthvlm.decoding import Reading, TorchReading
from earthvlm.int8_linear import keep_in_int8

Start = Callable[[], Reading]
# Numbers that share a scale where weights take 4 bits; it divides SmolLM2's widths.
GROUP = 64
FIXED_LENGTH = 256  # of the cache that does not grow, in tokens
LLAMA_KINDS = ("F16", "Q8_0", "Q4_1", "Q4_0")
TORCHAO_KINDS = ("int8 weights", "int8 weights and vectors", "int4 weights")
ONNX_KINDS = ("as they are", "int8 weights", "int8 weights and vectors", "int4 weights")
OPENVINO_KINDS = ("as they are", "int8 weights", "int4 weights")


def make_ways(
    bridge: OlmoEarthVLMBridge, wanted: Callable[[str], bool], folder: Path
) -> dict[str, Start]:
    """What starts a reading, by the name of the way; those not wanted are not made.

    folder: for files of other runtimes, which they may go on reading.
    """
    model, ways = bridge.language.model, {}
    names = {
        **_torch_ways(model),
        **{f"llama.cpp, {kind}": partial(_llama, bridge, kind) for kind in LLAMA_KINDS},
        **{f"torchao, {kind}": partial(_torchao, model, kind) for kind in TORCHAO_KINDS},
        **{f"ONNX Runtime, {kind}": partial(_onnx, model, folder, kind) for kind in ONNX_KINDS},
        **{f"OpenVINO, {kind}": partial(_openvino, model, folder, kind) for kind in OPENVINO_KINDS},
    }
    for name, make in names.items():
        if not wanted(name):
            continue
        try:
            ways[name] = make()
        except ModuleNotFoundError as error:
            print(f"{name}: left out, {error}")
    return ways


def _torch_ways(model: PreTrainedModel) -> dict[str, Callable[[], Start]]:
    def adapted() -> Start:
        other = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu", trainable=True)
        return partial(TorchReading, other.language.model)

    def fixed(make: Callable[[PreTrainedModel], Callable[..., object]]) -> Start:
        return partial(FixedReading, model, make(model))

    def written_down(make: Callable[[nn.Module], Callable[..., object]]) -> Start:
        decoder = PlainDecoder(model)
        return partial(ExportedReading, make(decoder), decoder.nothing_read())

    return {
        "plain": lambda: partial(TorchReading, model),
        "adapter not merged": adapted,
        "float32": lambda: partial(TorchReading, copy.deepcopy(model).float()),
        "int8 weights, torch": lambda: partial(TorchReading, _in_int8(model)),
        "int4 weights, torch": lambda: partial(TorchReading, _in_int4(model)),
        "int8, torch's dynamic quantisation": lambda: partial(TorchReading, _dynamic(model)),
        "cache of fixed length": lambda: fixed(lambda same: same),
        "cache of fixed length, compiled": lambda: fixed(partial(torch.compile, dynamic=False)),
        "layers written down anew": lambda: written_down(lambda same: same),
        "layers written down anew, compiled": lambda: written_down(
            partial(torch.compile, dynamic=True)
        ),
    }


def _llama(bridge: OlmoEarthVLMBridge, kind: str) -> Start:
    from earthvlm.llama_engine import LlamaEngine, LlamaReading

    return partial(LlamaReading, LlamaEngine(bridge.language, bridge.revision, kind))


def _torchao(model: PreTrainedModel, kind: str) -> Start:
    from torchao import quantization
    from torchao.quantization.granularity import PerGroup

    settings = {
        "int8 weights": quantization.Int8WeightOnlyConfig,
        "int8 weights and vectors": quantization.Int8DynamicActivationInt8WeightConfig,
        "int4 weights": partial(quantization.IntxWeightOnlyConfig, torch.int4, PerGroup(GROUP)),
    }
    model = copy.deepcopy(model)
    # Its last layer gets weights of its own, to be rounded apart from the words'.
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone(), requires_grad=False)
    quantization.quantize_(model, settings[kind]())
    return partial(TorchReading, model)


def _onnx(model: PreTrainedModel, folder: Path, kind: str) -> Start:
    from onnxruntime.quantization import matmul_nbits_quantizer, quantize_dynamic

    path = export_onnx(model, folder)
    made = folder / f"{kind.partition(' ')[0]}.onnx"
    if kind == "int8 weights and vectors":
        quantize_dynamic(path, made, per_channel=True)
    elif kind != "as they are":
        bits = int(kind.removeprefix("int")[0])
        quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(
            str(path), bits=bits, block_size=GROUP, is_symmetric=True, accuracy_level=4
        )  # 4: it multiplies in whole numbers, which is what makes it fast
        quantizer.process()
        quantizer.model.save_model_to_file(str(made), use_external_data_format=True)
    run = run_by_onnxruntime(path if kind == "as they are" else made)
    return partial(ExportedReading, run, PlainDecoder(model).nothing_read().float())


def _openvino(model: PreTrainedModel, folder: Path, kind: str) -> Start:
    import nncf
    import openvino

    modes = {
        "int8 weights": {"mode": nncf.CompressWeightsMode.INT8_SYM},
        "int4 weights": {"mode": nncf.CompressWeightsMode.INT4_SYM, "group_size": GROUP},
    }
    network = openvino.Core().read_model(export_onnx(model, folder))
    if kind in modes:
        network = nncf.compress_weights(network, **modes[kind])
    run = run_by_openvino(network)
    return partial(ExportedReading, run, PlainDecoder(model).nothing_read().float())


class FixedReading(TorchReading):
    """A cache of fixed length; `step` reads each token after the first reading."""

    def __init__(self, model: PreTrainedModel, step: Callable[..., object]) -> None:
        super().__init__(model)
        self.cache = StaticCache(config=model.config, max_cache_len=FIXED_LENGTH)
        self.step = step

    def read(self, vectors: Tensor, both_ways: int = 0) -> Tensor:
        start = int(self.length)
        places = torch.arange(start, start + vectors.shape[1])[None]
        model = self.model if vectors.shape[1] > 1 else self.step
        return model(None, None, places, self.cache, vectors, use_cache=True).logits[:, -1]


class Int4Linear(nn.Module):
    """A layer in 4 bits by torch's own kernel, a scale and a zero for each group of a row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows = linear.weight.detach().float().unflatten(1, (-1, GROUP))
        least, most = rows.aminmax(dim=-1)
        scale = (most - least).clamp(min=1e-6) / 15
        whole = ((rows - least[..., None]) / scale[..., None]).round().clamp(0, 15)
        whole = whole.flatten(1).to(torch.int32)
        self.weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 1)
        both = torch.stack([scale, least + 8 * scale], dim=-1)
        self.scales = both.transpose(0, 1).contiguous().to(linear.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        seen = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.weight, GROUP, self.scales)
        return seen.unflatten(0, x.shape[:-1])


def _in_int8(model: PreTrainedModel) -> PreTrainedModel:
    model = copy.deepcopy(model)
    for name in [name for name, _ in model.named_modules() if name]:
        keep_in_int8(model, name)
    return model


def _in_int4(model: PreTrainedModel) -> PreTrainedModel:
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int4Linear(child))
    return model


def _dynamic(model: PreTrainedModel) -> PreTrainedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that torchao will replace it
        whole = copy.deepcopy(model).float()
        return torch.ao.quantization.quantize_dynamic(whole, {nn.Linear}, torch.qint8)
