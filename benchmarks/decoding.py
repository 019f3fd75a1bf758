"""What each way to decode brings: the same weights, the same scene and question, in one run.

python -m benchmarks.decoding [--scenes 4] [--compile]

Ways take turns, so that whatever else the machine does slows all of them alike. Beside tokens a
second: how many of the plain path's tokens each way would have chosen too, given those before.
The rows of llama.cpp need the extra `llama`; --compile adds torch.compile, which takes minutes.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, StaticCache

from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex
from earthvlm.decoding import Reading, TorchReading
from earthvlm.language import LanguageModel
from earthvlm.prompts import Prompt

TOKENS = 40
QUESTION = [{"role": "user", "content": "Describe this scene."}]


class Int8Linear(nn.Module):
    """A layer in 8 bits by torch's own kernel, a scale a row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.weight = (weight / scale).round().to(torch.int8)
        self.scale = scale[:, 0].to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2).to(torch.bfloat16)
        seen = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scale)
        return seen.unflatten(0, x.shape[:-1])


class CompiledReading(TorchReading):
    """A cache of fixed length, and a compiled step for each token after the first reading."""

    def __init__(self, model: PreTrainedModel, step: Callable[..., object]) -> None:
        super().__init__(model)
        self.cache = StaticCache(config=model.config, max_cache_len=256)
        self.step = step

    def read(self, vectors: Tensor, both_ways: int = 0) -> Tensor:
        start = int(self.length)
        places = torch.arange(start, start + vectors.shape[1])[None]
        model = self.model if vectors.shape[1] > 1 else self.step
        return model(None, None, places, self.cache, vectors, use_cache=True).logits[:, -1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", action="store_true", help="add torch.compile")
    parser.add_argument("--scenes", type=int, default=4)
    arguments = parser.parse_args()
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    adapted = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu", trainable=True)
    language, prompt = bridge.language, bridge.language.encode(QUESTION)
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=arguments.scenes)
    scenes = [bridge._look(Scene.open(result.scene_file)).vectors for result in found]
    ways = make_ways(bridge, adapted.language.model, arguments.compile)

    plain = [speak(ways["plain"](), language, prompt, scene)[0] for scene in scenes]
    first: dict[str, list[float]] = {name: [] for name in ways}
    rate: dict[str, list[float]] = {name: [] for name in ways}
    for scene in scenes:
        for name, start in ways.items():
            _, to_first, then = speak(start(), language, prompt, scene)
            first[name].append(to_first)
            rate[name].append((TOKENS - 1) / then)
    report("decoding", rate, "tokens/s")
    report("decoding_first", first, "s to the first token, scene seen already")
    times = {
        name: [a / b for a, b in zip(r, rate["plain"], strict=True)] for name, r in rate.items()
    }
    report("decoding_ratio", times, "times plain")
    agreement = {
        name: [agree(start(), language, prompt, s, p) for s, p in zip(scenes, plain, strict=True)]
        for name, start in ways.items()
    }
    report("decoding_agreement", agreement, "of the plain path's first 20 tokens chosen too")
    drafts = [draft_length(said) for said in plain]
    report("decoding_lookup", {"drafted right by prompt lookup": drafts}, "of tokens")


def make_ways(
    bridge: OlmoEarthVLMBridge, adapted: PreTrainedModel, compiled: bool
) -> dict[str, Callable[[], Reading]]:
    """What starts a reading, by the name of the way."""
    model = bridge.language.model
    whole = copy.deepcopy(model).float()
    eight = copy.deepcopy(model).to(torch.bfloat16)
    for module in list(eight.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    ways: dict[str, Callable[[], Reading]] = {
        "plain": lambda: TorchReading(model),
        "adapter not merged": lambda: TorchReading(adapted),
        "float32": lambda: TorchReading(whole),
        "int8 weights, torch": lambda: TorchReading(eight),
    }
    if compiled:
        step = torch.compile(model, dynamic=False)
        ways["static cache"] = lambda: CompiledReading(model, model)
        ways["static cache, compiled"] = lambda: CompiledReading(model, step)
    try:
        from earthvlm.llama_engine import LlamaEngine, LlamaReading

        for kind in ("F16", "Q8_0", "Q4_1", "Q4_0"):
            engine = LlamaEngine(bridge.language, bridge.revision, kind)
            ways[f"llama.cpp, {kind}"] = lambda engine=engine: LlamaReading(engine)
    except ModuleNotFoundError as error:
        print(error)
    return ways


@torch.inference_mode()
def speak(
    reading: Reading, language: LanguageModel, prompt: Prompt, scene: Tensor
) -> tuple[list[int], float, float]:
    """The likeliest tokens, seconds to the first of them, and for the others."""
    vectors = _vectors(language, prompt, scene)
    start = time.perf_counter()
    said = [reading.read(vectors).argmax(-1)]
    first = time.perf_counter()
    while len(said) < TOKENS:
        said.append(reading.read(language.embed(said[-1][:, None])).argmax(-1))
    end = time.perf_counter()
    reading.rest()
    return [token.item() for token in said], first - start, end - first


@torch.inference_mode()
def agree(
    reading: Reading, language: LanguageModel, prompt: Prompt, scene: Tensor, said: list[int]
) -> float:
    """The share of the first 20 tokens that this way would have chosen, given those before."""
    vectors, same = _vectors(language, prompt, scene), 0
    for token in said[:20]:
        same += reading.read(vectors).argmax().item() == token
        vectors = language.embed(torch.tensor([[token]]))
    reading.rest()
    return same / 20


def draft_length(said: list[int], pair: int = 2) -> float:
    """The share of tokens which the last two, where they occurred before, would have foretold."""
    right = 0
    for place in range(pair, len(said)):
        last = said[place - pair : place]
        earlier = [n for n in range(place - pair) if said[n : n + pair] == last]
        right += bool(earlier) and said[earlier[-1] + pair] == said[place]
    return right / len(said)


def _vectors(language: LanguageModel, prompt: Prompt, scene: Tensor) -> Tensor:
    words, at = language.embed(torch.tensor(prompt.ids)), prompt.scene_at
    return torch.cat([words[:at], scene.to(words.dtype), words[at:]])[None]


if __name__ == "__main__":
    main()
