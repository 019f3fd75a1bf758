"""The bridge: a scene's tokens carried into a language model that talks about it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earthvlm.bridge.batch import BridgeBatch, BridgeOutput, pad_batch, plan_batches, read_answers
from earthvlm.bridge.config import LIMITS, BridgeConfig
from earthvlm.bridge.serialization import collect_states, find_bridge, read_bridge, write_bridge
from earthvlm.generation.cpu_attention import choose_attention
from earthvlm.generation.decoding import DecoderState, TorchDecoderState, answer_batch
from earthvlm.generation.prompt_lookup import AnswerCache
from earthvlm.generation.sampling import DEFAULT_PROMPT, Sampling, check_prompt
from earthvlm.generation.session import ChatSession, PrefixCache
from earthvlm.models.chat_templates import Message, Prompt
from earthvlm.models.language_model import load_language_model
from earthvlm.models.lora import add_adapter
from earthvlm.models.moondream2_vision import PictureCrops
from earthvlm.models.olmoearth import (
    OlmoEarthEncoder,
    PreparedScene,
    SceneTokens,
    multiplies_bfloat16,
)
from earthvlm.models.query_encoder import GeospatialQueryEncoder, SceneEmbeddingHead
from earthvlm.models.smollm2 import EMBEDDED_MODEL_ID
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.distribution_shift import TrainingStatistics
from earthvlm.scenes.scene import Scene
from earthvlm.storage.hub import BUNDLED, LOCAL_REVISION

if TYPE_CHECKING:
    from PIL import Image

ANSWERS_AT_ONCE = 32  # of a list of scenes: beyond, a processor is no faster
ENGINES = ("torch", "llama")
UNTRAINED_ENCODER_ID = "random-v1.2-nano"


class OlmoEarthVLMBridge(nn.Module):
    """OlmoEarth, a query encoder and a language model, made into one.

    olmoearth_model_id: see `OlmoEarthEncoder`. vlm_model_id: see `load_language_model`.
    freeze_olmoearth: keep the encoder as it is; otherwise it trains and is saved along.
    use_vlm_vision: let the language model's own vision tower see the scene's true colours too;
        its tokens come before the queries. freeze_vlm_vision: keep that tower as it is.
    use_lora, lora_r, lora_alpha: low-rank adapters in every linear layer of the language model;
        without them, the language model trains whole, in float32, and is saved with the bridge.
    num_geo_queries: how many vectors a scene becomes for the language model.
    patch_size: the pixels a token stands for, to a side: 8 for speed, fewer to see finer things;
        see `OlmoEarthEncoder`.
    embedding_patch_size: the same where scenes are embedded for search; `patch_size` by default.
    trainable: False builds a bridge that answers alone, with no adapter of its own.

    Raises ValueError or FileNotFoundError, in one sentence, where a model cannot be had.
    """

    def __init__(
        self,
        olmoearth_model_id: str = "OlmoEarth-v1-Nano",
        vlm_model_id: str = "vikhyatk/moondream2",
        freeze_olmoearth: bool = True,
        freeze_vlm_vision: bool = False,
        use_lora: bool = True,
        lora_r: int = 16,
        lora_alpha: int = 32,
        num_geo_queries: int = 32,
        device: str | torch.device | None = None,
        *,
        dtype: torch.dtype | None = None,
        bands: Sequence[str] = BANDS,
        use_vlm_vision: bool = False,
        olmoearth_revision: str | None = None,
        vlm_revision: str | None = None,
        patch_size: int | None = None,
        embedding_patch_size: int | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        if trainable and dtype == torch.int8:
            raise ValueError(
                "Weights of 8 bits answer, and cannot be trained: leave dtype=torch.int8 out."
            )
        # Steps of training are smaller than bfloat16's rounding.
        language_dtype = torch.float32 if trainable and not use_lora and dtype is None else dtype
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.encoder = OlmoEarthEncoder(
            olmoearth_model_id, bands, patch_size, revision=olmoearth_revision
        ).to(device)
        self.encoder.requires_grad_(not freeze_olmoearth)
        self.encoder.check_patch_size(embedding_patch_size or self.encoder.patch_size)
        self.language = load_language_model(
            vlm_model_id, language_dtype, device, vlm_revision, use_vlm_vision
        )
        self.vision = self.language.vision
        if self.vision is not None:
            self.vision.requires_grad_(not freeze_vlm_vision)
            if trainable and dtype is None and not freeze_vlm_vision:
                self.vision.float()
        embeddings = self.language.model.get_input_embeddings()
        # Through the layer, not off its weights: Gemma scales what it looks up.
        words = embeddings(torch.arange(min(1024, embeddings.num_embeddings), device=device))
        self.fusion = GeospatialQueryEncoder(
            self.encoder.dim,
            self.language.dim,
            num_geo_queries,
            output_scale=words.detach().float().std().item(),
        ).to(device)
        self.head = SceneEmbeddingHead(self.encoder.dim, self.language.dim, SENTENCE_DIM).to(device)
        self.language_model: nn.Module = self.language.model
        self.language_model.requires_grad_(trainable and not use_lora)
        if use_lora and trainable:
            self.language_model = add_adapter(self.language, lora_r, lora_alpha)
        self.config = BridgeConfig(
            olmoearth_model_id=self.encoder.model_id,
            vlm_model_id=vlm_model_id,
            vlm_revision=self.language.revision,
            olmoearth_revision=self.encoder.revision,
            use_vlm_vision=use_vlm_vision,
            freeze_olmoearth=freeze_olmoearth,
            freeze_vlm_vision=freeze_vlm_vision,
            use_lora=use_lora,
            lora_r=lora_r,
            lora_alpha=lora_alpha,
            num_geo_queries=num_geo_queries,
            bands=tuple(bands),
            patch_size=self.encoder.patch_size,
            embedding_patch_size=embedding_patch_size or self.encoder.patch_size,
        )
        self.merged_adapter: dict[str, Tensor] | None = None
        self._prefix_cache = PrefixCache()
        self._new_state: Callable[[], DecoderState] = partial(
            TorchDecoderState, self.language.model
        )
        self._answer_cache: AnswerCache | None = AnswerCache()
        self.revision = _unsaved_revision()
        self.commit = LOCAL_REVISION  # of the Hub repository it was fetched from

    @property
    def device(self) -> torch.device:
        """Where its layers are, and where scenes are sent."""
        return self.fusion.queries.device

    @property
    def _image_tokens(self) -> int:
        """How many of a scene's vectors are the picture's, which are read in both directions."""
        return 0 if self.vision is None else self.vision.num_tokens

    @property
    def summary(self) -> str:
        """One line: which models answer, in which revision, trained on what."""
        trained = self.config.trained_on or "not trained: its answers mean nothing"
        sight, words = self.config.olmoearth_model_id, self.config.vlm_model_id
        fetched = "" if self.commit == LOCAL_REVISION else f" (commit {self.commit[:7]})"
        if words == EMBEDDED_MODEL_ID:
            words = "SmolLM2-135M-Instruct (4-bit weights)"
        if sight == UNTRAINED_ENCODER_ID:
            sight = "an encoder of OlmoEarth v1.2 nano's architecture, without released weights"
        return (
            f"{sight}, {self.config.num_geo_queries} queries, "
            f"{words}; bridge revision {self.revision}{fetched}; {trained}"
        )

    @property
    def limits(self) -> str:
        """What the reader should keep in mind about answers."""
        return LIMITS

    @property
    def prepare(self) -> Callable[[Scene], PreparedScene]:
        """Makes a scene ready for `encode` and `collate`, in a data loader's worker too."""
        return partial(_prepare, self.encoder.prepare, self.vision.cut if self.vision else None)

    @property
    def prepare_to_embed(self) -> Callable[[Scene], PreparedScene]:
        """Makes a scene ready to be seen as the search head sees it, in patches of its own size."""
        return partial(self.encoder.prepare, patch_size=self.config.embedding_patch_size)

    def encode(
        self, scenes: Sequence[PreparedScene], in_bfloat16: bool = False
    ) -> tuple[SceneTokens, Tensor]:
        """What the encoder saw, and what the queries gathered of it, `[B, Q, D_text]`.

        in_bfloat16: let the processor multiply most matrices in it; see `multiplies_bfloat16`.
        """
        tokens = self.encoder(scenes, in_bfloat16)
        return tokens, self.resample(tokens, in_bfloat16)

    def resample(self, tokens: SceneTokens, in_bfloat16: bool = False) -> Tensor:
        """What the queries gather of what the encoder saw, `[B, Q, D_text]`."""
        return self.fusion(tokens.tokens, tokens.positions, tokens.mask, in_bfloat16=in_bfloat16)

    # Training

    def collate(
        self,
        scenes: Sequence[PreparedScene],
        prompts: Sequence[Prompt],
        tokens: SceneTokens | None = None,
    ) -> BridgeBatch:
        """Pad conversations into a batch. Raises ValueError where the scene's place differs."""
        return pad_batch(scenes, prompts, tokens, self.language.stop_ids[0])

    def forward(self, batch: BridgeBatch) -> BridgeOutput:
        """The loss on the answers of a batch, and its scenes' embeddings."""
        tokens = batch.tokens
        tokens = self.encoder(batch.scenes) if tokens is None else tokens.to(self.device)
        queries = self.resample(tokens)
        scene = self._with_picture(batch.scenes, queries)
        logits, labels = read_answers(self.language, batch, scene, self._image_tokens)
        scored = labels != -100
        return BridgeOutput(
            loss=F.cross_entropy(logits, labels[scored]),
            answer_tokens=scored.sum(),
            scene_embedding=self.head(queries, tokens.tokens, tokens.mask),
            tokens=tokens,
            queries=queries,
        )

    @torch.inference_mode()
    def answer_losses(
        self, scenes: Sequence[Scene] | None, conversations: Sequence[Sequence[Message]]
    ) -> tuple[list[float], list[int]]:
        """How unlikely the answers of conversations are: minus their log probability, and tokens.

        scenes: one for each conversation, or None for what is said unseeing.
        """
        prompts = [self.language.encode(messages) for messages in conversations]
        prepared = [self.prepare(scene) for scene in scenes or ()]
        batch = self.collate(prepared, prompts)
        seen, picture = (
            self._scene_prefix(prepared, len(prompts)),
            self._image_tokens if scenes else 0,
        )
        logits, labels = read_answers(self.language, batch, seen, picture)
        scored = labels != -100
        losses = torch.zeros(labels.shape, device=self.device)
        losses[scored] = F.cross_entropy(logits, labels[scored], reduction="none")
        return losses.sum(1).tolist(), scored.sum(1).tolist()

    def _scene_prefix(self, scenes: Sequence[PreparedScene], count: int) -> Tensor:
        """Scenes as the language model reads them, or `count` times nothing: `[count, S, D]`."""
        if not scenes:
            return self.fusion.queries.new_zeros(count, 0, self.language.dim)
        # Only where the language model's numbers are no finer, or answers would differ.
        in_bfloat16 = self.language.model.dtype == torch.bfloat16
        in_bfloat16 = in_bfloat16 and multiplies_bfloat16(self.device)
        return self._with_picture(scenes, self.encode(scenes, in_bfloat16)[1])

    def _with_picture(self, scenes: Sequence[PreparedScene], queries: Tensor) -> Tensor:
        """The scene as the language model reads it: its picture's tokens, if any, and queries."""
        if self.vision is None:
            return queries
        seen = self.vision([scene.picture for scene in scenes])
        return torch.cat([seen, queries.to(seen.dtype)], dim=1)

    # Use

    @torch.inference_mode()
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

        scene: None gives a list of what is answered to prompts unseeing.
        prompt: one for all scenes or one each. max_length: tokens at most.
        temperature: 0 gives the likeliest words, more gives variety; top_p and top_k bound it.
        Raises ValueError for an empty prompt, and for one that is too long to be read.
        """
        sampling = Sampling(max_length, temperature, top_p, top_k)
        if isinstance(scene, Scene):
            asked = self._ask([{"role": "user", "content": str(prompt)}])
            return "".join(self._start_session(scene).answer(asked, sampling)).strip()
        scenes = list(scene) if scene is not None else []
        alike = isinstance(prompt, str)
        words = [prompt] * (len(scenes) if scene is not None else 1) if alike else list(prompt)
        if scene is not None and len(scenes) != len(words):
            raise ValueError(f"{len(scenes)} scenes need as many prompts, not {len(words)}.")
        if len(scenes) == 1:  # as any single one: by the engine that was chosen
            return [self.generate(scenes[0], words[0], max_length, temperature, top_p, top_k)]
        prompts = [self._ask([{"role": "user", "content": text}]) for text in words]
        sizes = [self.encoder.count_patches(scene) for scene in scenes] or [0] * len(prompts)
        answers = [""] * len(prompts)
        for batch in plan_batches(sizes, ANSWERS_AT_ONCE):
            seen = self._scene_prefix(
                [self.prepare(scenes[i]) for i in batch if scenes], len(batch)
            )
            asked = [prompts[i] for i in batch]
            picture = self._image_tokens if scenes else 0
            said = answer_batch(self.language, asked, seen, picture, sampling, self._answer_cache)
            for i, answer in zip(batch, said, strict=True):
                answers[i] = answer
        return answers

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
        """Answer the last of the messages piece by piece; setting `stop` ends it within a token.

        Closing the iterator stops the model too. Asked again about the same Scene object, the
        model looks at it no second time and reads only what is new of the messages.
        Raises ValueError for a conversation that is too long for the language model.
        """
        sampling = Sampling(max_length, temperature, top_p, top_k)
        asked = self._ask(messages)
        conversation = self._prefix_cache.take(scene) or self._start_session(scene)
        pieces = conversation.answer(asked, sampling, stop)
        try:
            yield from pieces
        finally:
            pieces.close()
            self._prefix_cache.keep(scene, conversation)

    @torch.inference_mode()
    def embed(self, scenes: Sequence[Scene], batch_size: int = 32) -> np.ndarray:
        """Embed scenes beside sentences: float32 `[B, 384]`, unit length.

        A processor that multiplies bfloat16 does, which moves no number by more than 0.001.
        """
        embedded = np.zeros((len(scenes), SENTENCE_DIM), np.float32)
        patch = self.config.embedding_patch_size
        sizes = [self.encoder.count_patches(scene, patch) for scene in scenes]
        in_bfloat16 = multiplies_bfloat16(self.device)
        for batch in plan_batches(sizes, batch_size):
            tokens, queries = self.encode(
                [self.prepare_to_embed(scenes[i]) for i in batch], in_bfloat16
            )
            embedded[batch] = self.head(queries, tokens.tokens, tokens.mask).cpu().numpy()
        return embedded

    def train(self, mode: bool = True) -> OlmoEarthVLMBridge:
        """Set training or evaluation mode. What was read is forgotten: weights may change now."""
        self._prefix_cache.clear()
        if mode:
            self.revision = _unsaved_revision()
        choose_attention(self.language.model, answering=not mode)
        if mode:
            self._new_state = partial(TorchDecoderState, self.language.model)
            self._answer_cache = AnswerCache()
        return super().train(mode)

    def _ask(self, messages: Sequence[Message]) -> Prompt:
        for message in messages:
            if message["role"] == "user":
                check_prompt(message["content"])
        return self.language.encode(messages)

    @torch.inference_mode()
    def _start_session(self, scene: Scene) -> ChatSession:
        """Look at a scene, to talk about it."""
        vectors = self._scene_prefix([self.prepare(scene)], 1)[0]
        state = self._new_state()
        return ChatSession(self.language, vectors, state, self._image_tokens, self._answer_cache)

    # Files

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """What training changes, by the file it is saved in.

        Where processes share the bridge in shards, all of them call this together, and each gets
        whole tensors.
        """
        return collect_states(self)

    def save_pretrained(
        self,
        folder: str | Path,
        dtype: torch.dtype = torch.float32,
        weights: dict[str, dict[str, Tensor]] | None = None,
    ) -> None:
        """Write the bridge to a folder: configuration, fusion, adapter, and what else trained.

        dtype: what weights are stored in; bfloat16 halves the files of a bridge for use.
        weights: what `weights` returned, where it had to be called before.
        Raises ValueError for a language model that was trained whole and is in 8 bits here.
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
        engine: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> OlmoEarthVLMBridge:
        """Load a bridge: the "bundled" one, a folder's, or a Hub repository's.

        trainable: keep the adapter apart, ready to train on; otherwise it is merged into the
            language model, which then answers faster. One that was trained whole is then kept in
            float32.
        engine: "torch", or "llama" for llama.cpp (`pip install earthvlm[llama]`), which answers
            single scenes several times as fast on a CPU from weights of 8 bits; lists of several,
            and what is trainable, stay with torch. None takes `$EARTHVLM_ENGINE`, else "torch".
        revision, token, cache_dir, local_files_only: of the Hub repository; see `fetch`.

        Raises FileNotFoundError or ValueError that names the part that is missing or disagrees;
        nothing is initialised anew in its place. ConnectionError where the Hub cannot be reached.
        """
        engine = engine or os.environ.get("EARTHVLM_ENGINE") or "torch"
        if engine not in ENGINES:
            raise ValueError(f"There is no engine {engine!r}: choose from {', '.join(ENGINES)}.")
        options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        folder, commit = find_bridge(source, revision, **options)
        bridge = read_bridge(cls, folder, device, dtype, trainable)
        bridge.commit = commit
        if engine == "llama" and not trainable:
            from earthvlm.generation.llama_cpp import LlamaDecoderState, LlamaEngine

            if bridge.vision is not None:
                raise ValueError("llama.cpp reads no pictures here: leave the engine out.")
            llama = LlamaEngine(bridge.language, bridge.revision)
            bridge._new_state = partial(LlamaDecoderState, llama)
            bridge._answer_cache = (
                None  # it takes as long for several tokens as for one after another
            )
        return bridge.eval()

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Add the bridge",
        create_pr: bool = False,
        token: str | None = None,
        vlm_model: str | None = None,
        olmoearth_model: str | None = None,
    ) -> str:
        """Push the bridge with its card to a Hub repository in one commit; return its address.

        See `publish_bridge`, also for what it raises.
        """
        from earthvlm.bridge.publish import publish_bridge

        with tempfile.TemporaryDirectory(prefix="earthvlm-") as folder:
            self.save_pretrained(folder)
            return publish_bridge(
                Path(folder),
                repo_id,
                private=private,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
                token=token,
                vlm_model=vlm_model,
                olmoearth_model=olmoearth_model,
            )

    def set_patch_sizes(self, patch_size: int, embedding_patch_size: int) -> None:
        """Let a token stand for so many pixels to a side; the bridge then needs training.

        Raises ValueError for a patch size that the encoder does not take.
        """
        for size in (patch_size, embedding_patch_size):
            self.encoder.check_patch_size(size)
        self.encoder.patch_size = patch_size
        self.config = replace(
            self.config, patch_size=patch_size, embedding_patch_size=embedding_patch_size
        )
        self.revision = _unsaved_revision()

    def with_training(
        self,
        trained_on: str,
        training: dict,
        training_tiles: TrainingStatistics | None = None,
    ) -> None:
        """Record in the configuration what the bridge was trained on, for its users to read."""
        self.config = replace(
            self.config, trained_on=trained_on, training=training, training_tiles=training_tiles
        )


def _unsaved_revision() -> str:
    """A revision that no other bridge has: weights or settings are in memory alone."""
    return f"unsaved-{uuid4().hex[:8]}"


def _prepare(
    encode: Callable[[Scene], PreparedScene],
    cut: Callable[[Image.Image], PictureCrops] | None,
    scene: Scene,
) -> PreparedScene:
    prepared = encode(scene)
    return prepared if cut is None else replace(prepared, picture=cut(scene.composite()))
