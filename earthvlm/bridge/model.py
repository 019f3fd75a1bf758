"""The bridge: answers questions about scenes, embeds them, and is saved, loaded and published."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from earthvlm.bridge.batch import plan_batches
from earthvlm.bridge.config import LIMITS
from earthvlm.bridge.network import BridgeNetwork, unsaved_revision
from earthvlm.bridge.scoring import score_candidates
from earthvlm.bridge.serialization import collect_states, find_bridge, read_bridge, write_bridge
from earthvlm.data.questions.other_languages import seems_english
from earthvlm.data.questions.unanswerable import ASK_IN_ENGLISH
from earthvlm.generation.cpu_attention import choose_attention
from earthvlm.generation.sampling import DEFAULT_PROMPT, Sampling
from earthvlm.generation.text_generator import TextGenerator
from earthvlm.models.language.chat_templates import Message
from earthvlm.models.language.smollm2 import EMBEDDED_MODEL_ID
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.models.threads import fitting_threads
from earthvlm.scenes.scene import Scene
from earthvlm.storage.hub import BUNDLED, LOCAL_REVISION
from earthvlm.storage.tensors import multiplies_bfloat16

MAX_BATCH_SCENES = 32  # scenes answered at once; a CPU is no faster with more
UNTRAINED_ENCODER_ID = "random-v1.2-nano"


class OlmoEarthVLMBridge(BridgeNetwork):
    """OlmoEarth, a query encoder and a language model as one model that people use.

    It is built with the arguments of `BridgeNetwork`, or loaded with `from_pretrained`.
    """

    @cached_property
    def text_generator(self) -> TextGenerator:
        """Generates the answers, and keeps the decoder states of chats about scenes."""
        return TextGenerator(self.language, self.image_tokens)

    @property
    def summary(self) -> str:
        """One line on the bridge: its models, its revision, its training."""
        trained = self.config.trained_on or "not trained: its answers mean nothing"
        commit = "" if self.commit == LOCAL_REVISION else f" (commit {self.commit[:7]})"
        encoder, language = self.model_names
        models = f"{encoder}, {self.config.num_geo_queries} queries, {language}"
        return f"{models}; bridge revision {self.revision}{commit}; {trained}"

    @property
    def model_names(self) -> tuple[str, str]:
        """The names of the encoder and of the language model, for people."""
        encoder, language = self.config.olmoearth_model_id, self.config.vlm_model_id
        if language == EMBEDDED_MODEL_ID:
            language = "SmolLM2-135M-Instruct (4-bit weights)"
        if encoder == UNTRAINED_ENCODER_ID:
            encoder = "an encoder of OlmoEarth v1.2 nano's architecture, without released weights"
        return encoder, language

    @property
    def limits(self) -> str:
        """What readers should keep in mind about answers."""
        return LIMITS

    def train(self, mode: bool = True) -> OlmoEarthVLMBridge:
        """Set training or evaluation mode; clears the caches, because weights may change."""
        self.text_generator.prefix_cache.clear()
        self.memory.clear()
        choose_attention(self.language.model, answering=not mode)
        if mode:
            self.revision = unsaved_revision()
            self.text_generator.use_torch()
        return super().train(mode)

    @overload
    def generate(
        self,
        scene: Scene,
        prompt: str = ...,
        max_length: int = ...,
        temperature: float = ...,
        top_p: float = ...,
        top_k: int = ...,
    ) -> str: ...

    @overload
    def generate(
        self,
        scene: Sequence[Scene] | None,
        prompt: str | Sequence[str] = ...,
        max_length: int = ...,
        temperature: float = ...,
        top_p: float = ...,
        top_k: int = ...,
    ) -> list[str]: ...

    @torch.inference_mode()
    @fitting_threads()
    def generate(
        self,
        scene: Scene | Sequence[Scene] | None,
        prompt: str | Sequence[str] = DEFAULT_PROMPT,
        max_length: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> str | list[str]:
        """Answer a question about a scene; a list of scenes gives a list of answers.

        Args:
            scene: a scene or a list of them; None answers without a scene and returns a list.
            prompt: one question for all scenes, or a list with one for each.
            max_length: of an answer, in tokens.
            temperature: 0 takes the likeliest token each time, higher values give variety.
            top_p: sample from the likeliest tokens that reach this probability together.
            top_k: sample from this many likeliest tokens; 0 is off.

        Raises:
            ValueError: for an empty or too long prompt, or another number of prompts than scenes.
        """
        sampling = Sampling(max_length, temperature, top_p, top_k)
        if isinstance(scene, Scene):
            return self._generate_one(scene, str(prompt), sampling)
        scenes = list(scene) if scene is not None else []
        count = len(scenes) if scene is not None else 1
        texts = [prompt] * count if isinstance(prompt, str) else list(prompt)
        if scene is not None and len(scenes) != len(texts):
            raise ValueError(
                f"Each scene needs a prompt: {len(scenes)} and {len(texts)} were given."
            )
        if len(scenes) == 1:  # as a scene by itself is answered
            return [self._generate_one(scenes[0], texts[0], sampling)]
        answers = [ASK_IN_ENGLISH] * len(texts)
        asked = [i for i, text in enumerate(texts) if not self.declines(text)]
        found = self._generate_batches(
            [scenes[i] for i in asked] if scenes else [], [texts[i] for i in asked], sampling
        )
        for i, answer in zip(asked, found, strict=True):
            answers[i] = answer
        return answers

    def declines(self, question: str) -> bool:
        """Whether `ASK_IN_ENGLISH` is the answer: the bridge takes English alone."""
        return self.config.english_only and not seems_english(question)

    def _generate_batches(
        self, scenes: list[Scene], texts: list[str], sampling: Sampling
    ) -> list[str]:
        contexts = [self.write_context(scene) for scene in scenes] or [""] * len(texts)
        prompts = [
            self.text_generator.encode_prompt(_ask(text), context)
            for text, context in zip(texts, contexts, strict=True)
        ]
        seen = [self.memory.overview(scene) for scene in scenes]
        sizes = [self.encoder.count_patches(scene) for scene in seen] or [0] * len(prompts)
        answers = [""] * len(prompts)
        for batch in plan_batches(sizes, MAX_BATCH_SCENES):
            prefix = (
                self.scene_prefix([scenes[i] for i in batch])
                if scenes
                else self.empty_prefix(len(batch))
            )
            found = self.text_generator.answer_batch(prefix, [prompts[i] for i in batch], sampling)
            for i, answer in zip(batch, found, strict=True):
                answers[i] = answer
        return answers

    def _generate_one(self, scene: Scene, text: str, sampling: Sampling) -> str:
        if self.declines(text):
            return ASK_IN_ENGLISH
        prompt = self.text_generator.encode_prompt(_ask(text), self.write_context(scene))
        return self.text_generator.answer(self.scene_prefix([scene])[0], prompt, sampling)

    def stream(
        self,
        scene: Scene,
        messages: Sequence[Message],
        max_length: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        stop: threading.Event | None = None,
    ) -> Iterator[str]:
        """Answer the last of the messages piece by piece; see `generate` for the arguments.

        Setting `stop` ends the answer within a token, and so does closing the iterator. Later
        turns about the same Scene object compute only what is new of the messages.
        Raises ValueError for a conversation that is too long for the language model.
        """
        if self.declines(messages[-1]["content"]):
            yield ASK_IN_ENGLISH
            return
        with fitting_threads():
            yield from self.text_generator.stream(
                scene,
                lambda: self.scene_prefix([scene])[0],
                messages,
                Sampling(max_length, temperature, top_p, top_k),
                stop,
                self.write_context(scene),
            )

    @fitting_threads()
    def score(
        self,
        scene: Scene | Sequence[Scene] | None,
        question: str,
        candidates: Sequence[str],
        per_token: bool = False,
    ) -> np.ndarray:
        """Return the log-likelihood of each candidate answer: which one it would rather give.

        Args:
            scene: a scene or a list of them; None answers without a scene.
            question: the same for all scenes; `score_candidates` takes one for each.
            candidates: whole answers, worded as the bridge would.
            per_token: see `score_candidates`.

        Returns:
            `[C]` for one scene or none, `[N, C]` for a list of scenes.

        Raises:
            ValueError: as `score_candidates` does.
        """
        scenes = [scene] if isinstance(scene, Scene) else scene
        count = 1 if scenes is None else len(scenes)
        scores = score_candidates(self, scenes, [question] * count, [candidates] * count, per_token)
        if scene is None or isinstance(scene, Scene):
            return scores[0]
        return np.array(scores).reshape(count, len(candidates))

    @torch.inference_mode()
    @fitting_threads()
    def embed(self, scenes: Sequence[Scene], batch_size: int = 32) -> np.ndarray:
        """Embed scenes in the space of sentences: float32 `[B, 384]`, unit length.

        On a CPU with bfloat16 instructions, no number differs from float32's by more than 0.001.
        """
        embedded = np.zeros((len(scenes), SENTENCE_DIM), np.float32)
        patch = self.config.embedding_patch_size
        seen = [self.memory.overview(scene) for scene in scenes]
        sizes = [self.encoder.count_patches(scene, patch) for scene in seen]
        in_bfloat16 = multiplies_bfloat16(self.device)
        for batch in plan_batches(sizes, batch_size):
            tokens, queries = self.encode(
                [self.prepare_to_embed(seen[i]) for i in batch], in_bfloat16
            )
            embedded[batch] = self.head(queries, tokens.tokens, tokens.mask).cpu().numpy()
        return embedded

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Collect the weights that training changes, by file; see `collect_states`."""
        return collect_states(self)

    def save_pretrained(
        self,
        folder: str | Path,
        dtype: torch.dtype = torch.float32,
        weights: dict[str, dict[str, Tensor]] | None = None,
    ) -> None:
        """Write the bridge to a folder: its configuration and all weights that training changes.

        Args:
            folder: made where it does not exist.
            dtype: of the stored weights; bfloat16 halves the files.
            weights: what `weights` returned, where it had to be called earlier.

        Raises:
            ValueError: for a fully trained language model that was loaded in 8 bits.
        """
        self.revision = write_bridge(self, Path(folder), weights or self.weights(), dtype)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = BUNDLED,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        trainable: bool = False,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> OlmoEarthVLMBridge:
        """Load a bridge: "bundled", a folder, or a Hub repository.

        Args:
            source: "bundled", a folder or a Hub repository's id.
            device: a GPU by default where there is one.
            dtype: of the language model; see `load_language_model`. With None, answers about
                single scenes are decoded from 8-bit weights by ONNX Runtime on a CPU, where the
                model is laid out like Llama; every other dtype decodes with the weights as they
                are.
            trainable: keep the adapter separate, to train it; otherwise it is merged into the
                language model, which makes answers faster. A language model that was trained
                without adapters is kept in float32 then.
            revision: of the Hub repository, as are the arguments after it; see `fetch`.
            token: see `fetch`.
            cache_dir: see `fetch`.
            local_files_only: see `fetch`.

        Raises:
            FileNotFoundError: names the file that is missing.
            ValueError: names the file or argument that does not fit.
            ConnectionError: where the Hub cannot be reached.
        """
        folder, commit = find_bridge(
            source,
            revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        bridge = read_bridge(cls.from_config, folder, device, dtype, trainable)
        bridge.commit = commit
        if dtype is None and not trainable:
            bridge.text_generator.use_onnx()
        return bridge.eval()

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the bridge with its card in one commit; return the commit's address.

        options: of `publish_bridge`, which also says what is raised.
        """
        from earthvlm.bridge.hub.publish import publish_bridge

        with tempfile.TemporaryDirectory(prefix="earthvlm-") as folder:
            self.save_pretrained(folder)
            return publish_bridge(Path(folder), repo_id, **options)


def _ask(question: str) -> list[Message]:
    return [{"role": "user", "content": question}]
