"""Compare ways to decode: the same weights, scenes and question, in one run.

    python -m benchmarks.decoding
    python -m benchmarks.decoding --only ONNX  # plain decoding, and ways whose names contain this

Ways take turns, so that other work of the machine slows all of them alike. Prints tokens a second,
the share of plain decoding's tokens that a way would also have chosen after the same beginning, and
how many tokens one forward pass would yield if they were looked up in earlier answers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, SceneIndex
from earthvlm.generation.decoding import DecoderState, TorchDecoderState
from earthvlm.generation.prompt_lookup import DRAFT_TOKENS
from earthvlm.models.language.chat_templates import Prompt
from earthvlm.models.language.language_model import LanguageModel

TOKENS = 40
QUESTION = [{"role": "user", "content": "Describe this scene."}]
Start = Callable[[], DecoderState]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names of ways")
    parser.add_argument("--scenes", type=int, default=4)
    arguments = parser.parse_args()
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    language, prompt = bridge.language, bridge.language.encode(QUESTION)
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=arguments.scenes)
    scenes = [bridge.scene_prefix([result.open_scene()])[0] for result in found]
    compare(make_ways(bridge, ["plain", *arguments.only]), language, prompt, scenes)


def make_ways(bridge: OlmoEarthVLMBridge, wanted: list[str]) -> dict[str, Start]:
    """Functions that start a decoder state, by the name of the way, if `wanted` has a part of it.

    llama.cpp needs the package llama-cpp-python.
    """

    def adapted() -> Start:
        other = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu", trainable=True)
        return partial(TorchDecoderState, other.language.model)

    def llama() -> Start:
        from benchmarks.llama_cpp import LlamaCpp, LlamaCppState

        return partial(LlamaCppState, LlamaCpp(bridge.language.model))

    ways: dict[str, Start] = {}
    makers: dict[str, Callable[[], Start]] = {
        "plain": lambda: partial(TorchDecoderState, bridge.language.model),
        "adapter not merged": adapted,
        "ONNX Runtime, 8 bits": lambda: bridge.text_generator.make_state,
        "llama.cpp, Q8_0": llama,
    }
    for name, make in makers.items():
        if any(part in name for part in wanted):
            try:
                ways[name] = make()
            except (ModuleNotFoundError, ValueError) as error:
                print(f"{name}: left out, {error}")
    return ways


def compare(
    ways: dict[str, Start], language: LanguageModel, prompt: Prompt, scenes: list[Tensor]
) -> None:
    """Report how fast each way is, and how far it says the same; "plain" is one of them."""
    for start in ways.values():
        speak(start(), language, prompt, scenes[0], tokens=4)  # warms up, and compiles
    first: dict[str, list[float]] = {name: [] for name in ways}
    rate: dict[str, list[float]] = {name: [] for name in ways}
    plain = []
    for scene in scenes:
        for name, start in ways.items():
            said, to_first, then = speak(start(), language, prompt, scene)
            first[name].append(to_first)
            rate[name].append((TOKENS - 1) / then)
            if name == "plain":
                plain.append(said)
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
    others = [[token for other in plain if other is not said for token in other] for said in plain]
    drafts = {
        "in the question": [tokens_a_pass(list(prompt.ids), said) for said in plain],
        "in answers about other scenes too": [
            tokens_a_pass([*known, *prompt.ids], said)
            for known, said in zip(others, plain, strict=True)
        ],
    }
    report("decoding_lookup", drafts, f"tokens a state, {DRAFT_TOKENS} looked up")
    costs = {
        name: [cost_of_drafts(start(), language, prompt, scene) for scene in scenes]
        for name, start in ways.items()
    }
    report("decoding_drafts", costs, f"times as long to read {DRAFT_TOKENS + 1} tokens as one")


@torch.inference_mode()
def speak(
    state: DecoderState,
    language: LanguageModel,
    prompt: Prompt,
    scene: Tensor,
    tokens: int = TOKENS,
) -> tuple[list[int], float, float]:
    """The likeliest tokens, seconds to the first of them, and for the others."""
    vectors = _vectors(language, prompt, scene)
    start = time.perf_counter()
    said = [state.forward(vectors).argmax(-1)]
    first = time.perf_counter()
    while len(said) < tokens:
        said.append(state.forward(language.embed(said[-1][:, None])).argmax(-1))
    end = time.perf_counter()
    state.release()
    return [int(token) for token in said], first - start, end - first


@torch.inference_mode()
def agree(
    state: DecoderState, language: LanguageModel, prompt: Prompt, scene: Tensor, said: list[int]
) -> float:
    """The share of the first 20 tokens that this way would have chosen, given those before."""
    vectors, same = _vectors(language, prompt, scene), 0
    for token in said[:20]:
        same += state.forward(vectors).argmax().item() == token
        vectors = language.embed(torch.tensor([[token]]))
    state.release()
    return same / 20


def tokens_a_pass(known: list[int], said: list[int]) -> float:
    """Tokens that a forward pass yields on average, if the next ones are looked up in `known`."""
    look_up = PromptLookupCandidateGenerator(
        num_output_tokens=DRAFT_TOKENS, max_matching_ngram_size=3, max_length=100_000
    )
    place = passes = 0
    while place < len(said):
        ids = torch.tensor([known + said[:place]])
        drafted = look_up.get_candidates(ids)[0][0, ids.shape[1] :].tolist()
        right = 0
        while (
            right < min(len(drafted), len(said) - place) and drafted[right] == said[place + right]
        ):
            right += 1
        place += right + 1  # the reading tells one more than was drafted right
        passes += 1
    return len(said) / passes


@torch.inference_mode()
def cost_of_drafts(
    state: DecoderState, language: LanguageModel, prompt: Prompt, scene: Tensor
) -> float:
    """How many times as long it takes to read some tokens at once as to read one."""
    vectors = _vectors(language, prompt, scene)
    state.forward(vectors)
    seconds: dict[int, list[float]] = {1: [], DRAFT_TOKENS + 1: []}
    for count in list(seconds) * 8:
        start = time.perf_counter()
        state.forward(vectors[:, :count])
        seconds[count].append(time.perf_counter() - start)
    state.release()
    return statistics.median(seconds[DRAFT_TOKENS + 1]) / statistics.median(seconds[1])


def _vectors(language: LanguageModel, prompt: Prompt, scene: Tensor) -> Tensor:
    return language.embed_around(torch.tensor(prompt.ids), scene, prompt.scene_at)[None]


if __name__ == "__main__":
    main()
