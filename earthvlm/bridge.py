"""The bridge: a scene's tokens carried into a language model that talks about it."""

from __future__ import annotations

import copy
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earthvlm.bridge_config import (
    ADAPTER_FILE,
    ADAPTER_FOLDER,
    BRIDGE_FILES,
    CONFIG_FILE,
    ENCODER_FILE,
    FUSION_FILE,
    VISION_FILE,
    BridgeConfig,
    check_parts,
)
from earthvlm.embedded_model import EMBEDDED_MODEL_ID
from earthvlm.encoder import PATCH_SIZE, OlmoEarthEncoder, PreparedScene, SceneTokens
from earthvlm.fusion import GeospatialQueryEncoder, SceneEmbeddingHead
from earthvlm.generation import DEFAULT_PROMPT, check_prompt, generation_options, stream_pieces
from earthvlm.hub import BUNDLED, LOCAL_REVISION, fetch
from earthvlm.language import load_language_model
from earthvlm.moondream_vision import PictureCrops, prefix_attention
from earthvlm.prompts import Message, Prompt
from earthvlm.scene import Scene
from earthvlm.sentences import SENTENCE_DIM
from earthvlm.sentinel2 import BANDS
from earthvlm.weights import read_tensors, stored, weights_revision, whole

if TYPE_CHECKING:
    from PIL import Image
    from transformers import Cache

LIMITS = (
    "Answers can be wrong. The model names broad land cover and rounded shares; single objects, "
    "names of places and changes in time are beyond it."
)
UNTRAINED_ENCODER_ID = "random-v1.2-nano"


@dataclass(frozen=True)
class BridgeBatch:
    """Scenes with a conversation each, ready for `forward`.

    ids, labels: `[B, L]` without the scene's own tokens; padding has label -100.
    mask: `[B, L]`, True where there is a token.
    scene_at: where the scene stands among the ids, the same in all.
    tokens: what the encoder saw, where that is known already; scenes are then not needed.
    """

    scenes: list[PreparedScene]
    ids: Tensor
    labels: Tensor
    mask: Tensor
    scene_at: int
    tokens: SceneTokens | None = None


@dataclass(frozen=True)
class BridgeOutput:
    """loss: mean cross-entropy over answer tokens. answer_tokens: how many there were.
    scene_embedding: `[B, 384]`, unit length. tokens, queries: what `see` returns."""

    loss: Tensor
    answer_tokens: Tensor
    scene_embedding: Tensor
    tokens: SceneTokens
    queries: Tensor


class OlmoEarthVLMBridge(nn.Module):
    """OlmoEarth, a query encoder and a language model, made into one.

    olmoearth_model_id: see `OlmoEarthEncoder`. vlm_model_id: see `load_language_model`.
    freeze_olmoearth: keep the encoder as it is; otherwise it trains and is saved along.
    use_vlm_vision: let the language model's own vision tower see the scene's true colours too;
        its tokens come before the queries. freeze_vlm_vision: keep that tower as it is.
    use_lora, lora_r, lora_alpha: low-rank adapters in every linear layer of the language model.
    num_geo_queries: how many vectors a scene becomes for the language model.
    patch_size: the pixels a token stands for, to a side: 8 for speed, fewer to see finer things.

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
        patch_size: int = PATCH_SIZE,
    ) -> None:
        super().__init__()
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.encoder = OlmoEarthEncoder(
            str(olmoearth_model_id), bands, patch_size, revision=olmoearth_revision
        ).to(device)
        self.encoder.requires_grad_(not freeze_olmoearth)
        self.language = load_language_model(
            vlm_model_id, dtype, device, vlm_revision, use_vlm_vision
        )
        self.vision = self.language.vision
        if self.vision is not None:
            self.vision.requires_grad_(not freeze_vlm_vision)
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
        self.language_model.requires_grad_(False)
        if use_lora:
            self.language_model = _add_adapter(self.language, lora_r, lora_alpha)
        self.config = BridgeConfig(
            olmoearth_model_id=str(olmoearth_model_id),
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
            patch_size=patch_size,
        )
        self.revision = "untrained"
        self.commit = LOCAL_REVISION  # of the Hub repository it was fetched from

    @property
    def device(self) -> torch.device:
        return self.fusion.queries.device

    @property
    def summary(self) -> str:
        """One line: which models answer, in which revision, trained on what."""
        trained = self.config.trained_on or "not trained: its answers mean nothing"
        words = self.config.vlm_model_id
        fetched = "" if self.commit == LOCAL_REVISION else f" (commit {self.commit[:7]})"
        if words == EMBEDDED_MODEL_ID:
            words = "SmolLM2-135M-Instruct (4-bit weights)"
        return (
            f"{self.config.olmoearth_model_id} encoder, {self.config.num_geo_queries} queries, "
            f"{words}; bridge revision {self.revision}{fetched}; {trained}"
        )

    @property
    def limits(self) -> str:
        """What the reader should keep in mind about answers."""
        return LIMITS

    @property
    def prepare(self) -> Callable[[Scene], PreparedScene]:
        """Makes a scene ready for `see` and `collate`; light enough for a data loader's worker."""
        return partial(_prepare, self.encoder.prepare, self.vision.cut if self.vision else None)

    def see(self, scenes: Sequence[PreparedScene]) -> tuple[SceneTokens, Tensor]:
        """What the encoder saw, and what the queries gathered of it, `[B, Q, D_text]`."""
        tokens = self.encoder(scenes)
        return tokens, self.gather(tokens)

    def gather(self, tokens: SceneTokens) -> Tensor:
        """What the queries gather of what the encoder saw, `[B, Q, D_text]`."""
        return self.fusion(tokens.tokens, tokens.positions, tokens.mask)[0]

    # Training

    def collate(
        self,
        scenes: Sequence[PreparedScene],
        prompts: Sequence[Prompt],
        tokens: SceneTokens | None = None,
    ) -> BridgeBatch:
        """Pad conversations into a batch. Raises ValueError where the scene's place differs."""
        if len({p.scene_at for p in prompts}) != 1:
            raise ValueError("All conversations of a batch must place the scene alike.")
        longest = max(len(p.ids) for p in prompts)
        pad = self.language.stop_ids[0]
        ids = torch.full((len(prompts), longest), pad)
        labels = torch.full((len(prompts), longest), -100)
        mask = torch.zeros((len(prompts), longest), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
            labels[row, : len(prompt.ids)] = torch.tensor(prompt.labels)
            mask[row, : len(prompt.ids)] = True
        return BridgeBatch(list(scenes), ids, labels, mask, prompts[0].scene_at, tokens)

    def forward(self, batch: BridgeBatch) -> BridgeOutput:
        """The loss on the answers of a batch, and its scenes' embeddings."""
        tokens = batch.tokens
        tokens = self.encoder(batch.scenes) if tokens is None else tokens.to(self.device)
        queries = self.gather(tokens)
        logits, labels = self._read(batch, self._with_picture(batch.scenes, queries))
        scored = labels != -100
        return BridgeOutput(
            loss=F.cross_entropy(logits, labels[scored]),
            answer_tokens=scored.sum(),
            scene_embedding=self.head(queries, tokens.tokens, tokens.mask),
            tokens=tokens,
            queries=queries,
        )

    def _read(self, batch: BridgeBatch, scene: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the answers' tokens `[T, V]`, and labels `[B, L]` that say which those are."""
        embeds, mask = self._insert_scene(
            batch.ids.to(self.device), scene, batch.mask.to(self.device), batch.scene_at
        )
        if self.vision is not None and scene.shape[1]:
            mask = prefix_attention(mask, batch.scene_at + self.vision.num_tokens, embeds.dtype)
        model = self.language.model
        hidden = model.get_decoder()(
            inputs_embeds=embeds, attention_mask=mask, use_cache=False
        ).last_hidden_state
        # The vocabulary is large and answers are short: logits only where they are scored.
        # Behind the prefix, the state before a token stands `scene length` further on.
        labels = batch.labels.to(self.device)[:, batch.scene_at :]
        first = batch.scene_at + scene.shape[1]
        states = hidden[:, first - 1 : -1]
        return model.get_output_embeddings()(states[labels != -100]).float(), labels

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
        logits, labels = self._read(batch, self._show(prepared, len(prompts)))
        scored = labels != -100
        losses = torch.zeros(labels.shape, device=self.device)
        losses[scored] = F.cross_entropy(logits, labels[scored], reduction="none")
        return losses.sum(1).tolist(), scored.sum(1).tolist()

    def _show(self, scenes: Sequence[PreparedScene], count: int) -> Tensor:
        """Scenes as the language model reads them, or `count` times nothing: `[count, S, D]`."""
        if not scenes:
            return self.fusion.queries.new_zeros(count, 0, self.language.dim)
        return self._with_picture(scenes, self.see(scenes)[1])

    def _with_picture(self, scenes: Sequence[PreparedScene], queries: Tensor) -> Tensor:
        """The scene as the language model reads it: its picture's tokens, if any, and queries."""
        if self.vision is None:
            return queries
        seen = self.vision([scene.picture for scene in scenes])
        return torch.cat([seen, queries.to(seen.dtype)], dim=1)

    def _insert_scene(
        self, ids: Tensor, scene: Tensor, mask: Tensor, scene_at: int
    ) -> tuple[Tensor, Tensor]:
        """Word embeddings with the scene's S vectors among them: `[B, L + S, D_text]`, mask."""
        words = self.language.model.get_input_embeddings()(ids)
        scene = scene.to(words.dtype)
        embeds = torch.cat([words[:, :scene_at], scene, words[:, scene_at:]], dim=1)
        seen = mask.new_ones(scene.shape[:2])
        return embeds, torch.cat([mask[:, :scene_at], seen, mask[:, scene_at:]], dim=1).long()

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
        Raises ValueError for an empty prompt or one over `MAX_PROMPT_CHARACTERS`.
        """
        scenes = [scene] if isinstance(scene, Scene) else scene and list(scene)
        prompts = [prompt] * len(scenes or [0]) if isinstance(prompt, str) else list(prompt)
        conversations = [[{"role": "user", "content": p}] for p in prompts]
        options = generation_options(max_length, temperature, top_p, top_k)
        inputs = self._prepare_generation(scenes, conversations)
        ids = self.language.model.generate(
            **inputs, **options, eos_token_id=self.language.stop_ids, pad_token_id=self._pad_id
        )
        answers = self.language.tokenizer.batch_decode(ids, skip_special_tokens=True)
        answers = [answer.strip() for answer in answers]
        return answers[0] if isinstance(scene, Scene) else answers

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

        Closing the iterator stops the model too. Errors of the model are raised here.
        """
        options = generation_options(max_length, temperature, top_p, top_k)
        with torch.inference_mode():
            inputs = self._prepare_generation([scene], [list(messages)])
        yield from stream_pieces(self.language, {**inputs, **options}, stop)

    @torch.inference_mode()
    def embed(self, scenes: Sequence[Scene], batch_size: int = 32) -> np.ndarray:
        """Embed scenes beside sentences: float32 `[B, 384]`, unit length."""
        embedded = []
        for start in range(0, len(scenes), batch_size):
            prepared = [self.encoder.prepare(s) for s in scenes[start : start + batch_size]]
            tokens, queries = self.see(prepared)
            embedded.append(self.head(queries, tokens.tokens, tokens.mask).cpu().numpy())
        return np.concatenate(embedded) if embedded else np.zeros((0, SENTENCE_DIM), np.float32)

    @property
    def _pad_id(self) -> int:
        return self.language.stop_ids[0]

    def _prepare_generation(
        self, scenes: Sequence[Scene] | None, conversations: Sequence[Sequence[Message]]
    ) -> dict[str, Tensor | Cache]:
        """Embeddings and mask for `generate`, padded on the left, and what is computed already."""
        if scenes is not None and len(scenes) != len(conversations):
            raise ValueError(
                f"{len(scenes)} scenes need as many prompts, not {len(conversations)}."
            )
        for message in (m for messages in conversations for m in messages if m["role"] == "user"):
            check_prompt(message["content"])
        prompts = [self.language.encode(messages) for messages in conversations]
        vectors = self._show([self.prepare(scene) for scene in scenes or ()], len(prompts))
        longest = max(len(p.ids) for p in prompts)
        rows, masks = [], []
        for prompt, vector in zip(prompts, vectors, strict=True):
            ids = torch.tensor([prompt.ids], device=self.device)
            mask = torch.ones_like(ids, dtype=torch.bool)
            row, seen = self._insert_scene(ids, vector[None], mask, prompt.scene_at)
            rows.append(F.pad(row, (0, 0, longest - len(prompt.ids), 0)))
            masks.append(F.pad(seen, (longest - len(prompt.ids), 0)))
        inputs = {"inputs_embeds": torch.cat(rows), "attention_mask": torch.cat(masks)}
        if self.vision is not None and scenes:
            prefix = prompts[0].scene_at + self.vision.num_tokens
            inputs["cache"] = self._read_picture(**inputs, prefix=prefix)
        return inputs

    def _read_picture(self, inputs_embeds: Tensor, attention_mask: Tensor, prefix: int) -> Cache:
        """What the language model keeps of all but the last token, the picture read both ways.

        `generate` knows causal attention alone, so this pass comes before it.
        """
        attention = prefix_attention(attention_mask, prefix, inputs_embeds.dtype)
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        output = self.language.model.get_decoder()(
            inputs_embeds=inputs_embeds[:, :-1],
            attention_mask=attention[..., :-1, :-1],
            position_ids=positions[:, :-1],
            use_cache=True,
        )
        return output.past_key_values

    # Files

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """What training changes, by the file it is saved in.

        Where processes share the bridge in shards, all of them call this together, and each gets
        whole tensors.
        """
        return {
            file: {name: whole(tensor) for name, tensor in state.items()}
            for file, state in self._states().items()
        }

    def _states(self) -> dict[str, dict[str, Tensor]]:
        states = {FUSION_FILE: {}}
        for name, part in (("fusion", self.fusion), ("head", self.head)):
            for key, tensor in part.state_dict().items():
                states[FUSION_FILE][f"{name}.{key}"] = tensor
        if self.config.use_lora:
            from peft import get_peft_model_state_dict

            states[ADAPTER_FILE] = get_peft_model_state_dict(
                self.language_model, save_embedding_layers=False
            )
        if not self.config.freeze_olmoearth:
            states[ENCODER_FILE] = self.encoder.state_dict()
        if self.vision is not None and not self.config.freeze_vlm_vision:
            states[VISION_FILE] = self.vision.state_dict()
        return states

    def save_pretrained(
        self,
        folder: str | Path,
        dtype: torch.dtype = torch.float32,
        weights: dict[str, dict[str, Tensor]] | None = None,
    ) -> None:
        """Write the bridge to a folder: configuration, fusion, adapter, a trained encoder.

        dtype: what weights are stored in; bfloat16 halves the files of a bridge for use.
        weights: what `weights` returned, where it had to be called before.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.config.use_lora:
            adapter = copy.copy(self.language_model.peft_config["default"])
            adapter.inference_mode = True
            adapter.save_pretrained(folder / ADAPTER_FOLDER)
        for file, state in (weights or self.weights()).items():
            save_file(stored(state, dtype), folder / file, {"format": "pt"})
        (folder / CONFIG_FILE).write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        self.revision = weights_revision(folder)

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
        """Load a bridge: the "bundled" one, a folder's, or a Hub repository's.

        trainable: keep the adapter apart, ready to train on; otherwise it is merged into the
            language model, which then answers faster.
        revision, token, cache_dir, local_files_only: of the Hub repository; see `fetch`.

        Raises FileNotFoundError or ValueError that names the part that is missing or disagrees;
        nothing is initialised anew in its place. ConnectionError where the Hub cannot be reached.
        """
        if source == BUNDLED:
            folder, commit = Path(str(files("earthvlm") / "bundled" / "bridge")), LOCAL_REVISION
            if not folder.is_dir():
                raise FileNotFoundError(
                    "This installation has no bundled bridge: give the folder of a saved one."
                )
        else:
            options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
            snapshot = fetch(source, BRIDGE_FILES, revision, **options)
            folder, commit = snapshot.folder, snapshot.revision
        config = BridgeConfig.read(folder)
        check_parts(folder, config)
        bridge = cls(
            config.olmoearth_model_id,
            config.vlm_model_id,
            config.freeze_olmoearth,
            config.freeze_vlm_vision,
            config.use_lora,
            config.lora_r,
            config.lora_alpha,
            config.num_geo_queries,
            device,
            dtype=dtype,
            bands=config.bands,
            use_vlm_vision=config.use_vlm_vision,
            olmoearth_revision=_pinned(config.olmoearth_revision),
            vlm_revision=_pinned(config.vlm_revision),
            patch_size=config.patch_size,
        )
        if bridge.config.vlm_revision != config.vlm_revision:
            raise ValueError(
                f"{folder} was trained on {config.vlm_model_id} at {config.vlm_revision}, and here "
                f"it is at {bridge.config.vlm_revision}."
            )
        bridge._load_weights(folder)
        bridge.config = config
        bridge.revision = weights_revision(folder)
        bridge.commit = commit
        if config.use_lora and not trainable:
            bridge.language_model.merge_adapter()
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
    ) -> str:
        """Push the bridge with its card to a Hub repository in one commit; return its address.

        Raises ValueError where the caller may not write there, ConnectionError where the Hub cannot
        be reached.
        """
        from earthvlm.publishing import publish_bridge

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
            )

    def _load_weights(self, folder: Path) -> None:
        read = {
            file: read_tensors(folder / file, expected) for file, expected in self._states().items()
        }
        for name, part in (("fusion.", self.fusion), ("head.", self.head)):
            state = read[FUSION_FILE].items()
            part.load_state_dict(
                {key.removeprefix(name): t for key, t in state if key.startswith(name)}
            )
        for file, part in ((ENCODER_FILE, self.encoder), (VISION_FILE, self.vision)):
            if file in read:
                part.load_state_dict(read[file])
        if ADAPTER_FILE in read:
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(self.language_model, read[ADAPTER_FILE])

    def set_patch_size(self, patch_size: int) -> None:
        """Let a token stand for so many pixels to a side; the bridge then needs training."""
        self.encoder.patch_size = patch_size
        self.config = replace(self.config, patch_size=patch_size)

    def with_training(self, trained_on: str, training: dict) -> None:
        """Note in the configuration what the bridge was trained on, for its users to read."""
        self.config = replace(self.config, trained_on=trained_on, training=training)


def _prepare(
    encode: Callable[[Scene], PreparedScene],
    cut: Callable[[Image.Image], PictureCrops] | None,
    scene: Scene,
) -> PreparedScene:
    prepared = encode(scene)
    return prepared if cut is None else replace(prepared, picture=cut(scene.composite()))


def _pinned(revision: str) -> str | None:
    """A revision to load again; a folder's files have none."""
    return None if revision == LOCAL_REVISION else revision


def _add_adapter(language, rank: int, alpha: int) -> nn.Module:
    """A LoRA adapter in every layer the family names; PEFT is silent about names it misses."""
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, _ in language.model.named_modules()}
    missing = [target for target in language.family.lora_targets if target not in names]
    if missing:
        raise ValueError(f"{language.id} has no layers named {', '.join(missing)} to adapt.")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(language.family.lora_targets),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(language.model, config)
