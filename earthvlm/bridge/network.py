"""The bridge's network: encoder, queries and language model, from scenes to losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earthvlm.bridge.batch import (
    BridgeBatch,
    BridgeOutput,
    compute_answer_logits,
    pad_batch,
    sum_answer_losses,
)
from earthvlm.bridge.config import BridgeConfig
from earthvlm.bridge.scene_context import write_scene_context
from earthvlm.bridge.scene_memory import OVERVIEW_PIXELS, SceneMemory
from earthvlm.bridge.segmentation import Segmentation, segment_scene
from earthvlm.models.adapter_config import AdapterConfig
from earthvlm.models.language.chat_templates import Message, Prompt
from earthvlm.models.language.language_model import load_language_model
from earthvlm.models.language.moondream2_vision import PictureCrops
from earthvlm.models.lora import add_adapter, default_adapter
from earthvlm.models.olmoearth import OlmoEarthEncoder, PreparedScene, SceneTokens
from earthvlm.models.query_encoder import GeospatialQueryEncoder, SceneEmbeddingHead
from earthvlm.models.segmentation_head import SegmentationHead
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.models.threads import fitting_threads
from earthvlm.scenes.analysis.distribution_shift import TrainingStatistics
from earthvlm.scenes.analysis.spectral_indices import measure
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.overview import shrink_scene
from earthvlm.scenes.scene import Scene
from earthvlm.storage.hub import LOCAL_REVISION
from earthvlm.storage.tensors import multiplies_bfloat16

if TYPE_CHECKING:
    from PIL import Image


class BridgeNetwork(nn.Module):
    """OlmoEarth, a query encoder and a language model as one model.

    Args:
        olmoearth_model_id: see `OlmoEarthEncoder`.
        vlm_model_id: see `load_language_model`.
        freeze_olmoearth: keep the encoder's weights; otherwise they train and are saved too.
        freeze_vlm_vision: keep the weights of the language model's own vision tower.
        use_lora: train low-rank adapters in every linear layer of the language model; without
            them, all its weights train, in float32, and are saved with the bridge.
        lora_r: rank of the adapters.
        lora_alpha: scale of the adapters, times `lora_r`.
        num_geo_queries: the number of vectors that stand for a scene in the language model.
        device: where the model is placed; a GPU by default where there is one.
        dtype: of the language model; see `load_language_model`.
        bands: the bands the encoder is trained on; it ignores others.
        use_vlm_vision: also encode the scene's true-colour picture with the language model's own
            vision tower; its tokens come before the queries.
        olmoearth_revision: of the encoder's Hub repository.
        vlm_revision: of the language model's Hub repository.
        patch_size: pixels along a patch's side: 8 is fast, smaller ones resolve finer detail; see
            `OlmoEarthEncoder`.
        embedding_patch_size: the same for embedding scenes; `patch_size` by default.
        scene_context: write facts and measurements of a scene into the prompt; see
            `write_scene_context`.
        english_only: answer no question in another language; see `declines`.
        segmentation_head: add a head that maps the land cover of each pixel; see `segment`.
        trainable: False builds a bridge for inference, without an adapter of its own.
        adapter: in place of `lora_r` and `lora_alpha`, an adapter that is set up otherwise.

    Raises:
        ValueError: for a model id, a patch size or a combination of arguments that is not accepted.
        FileNotFoundError: where a model's files are missing.
    """

    merged_adapter: dict[str, Tensor] | None = None
    commit = LOCAL_REVISION  # of the Hub repository it was loaded from

    def __init__(
        self,
        olmoearth_model_id: str = "OlmoEarth-v1-Nano",
        vlm_model_id: str = "vikhyatk/moondream2",
        freeze_olmoearth: bool = True,
        freeze_vlm_vision: bool = False,
        use_lora: bool = True,
        lora_r: int = 16,
        lora_alpha: float = 32,
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
        scene_context: bool = False,
        english_only: bool = False,
        segmentation_head: bool = False,
        trainable: bool = True,
        adapter: AdapterConfig | None = None,
    ) -> None:
        super().__init__()
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        language_dtype = _choose_language_dtype(dtype, device, trainable, use_lora)
        self.encoder = OlmoEarthEncoder(
            olmoearth_model_id, bands, patch_size, revision=olmoearth_revision
        ).to(device)
        self.encoder.check_patch_size(embedding_patch_size or self.encoder.patch_size)
        self.language = load_language_model(
            vlm_model_id, language_dtype, device, vlm_revision, use_vlm_vision
        )
        scale = self.language.measure_embedding_std()
        self.fusion = GeospatialQueryEncoder(
            self.encoder.dim, self.language.dim, num_geo_queries, output_scale=scale
        ).to(device)
        self.adapter = adapter or default_adapter(self.language, lora_r, lora_alpha)
        self.config = BridgeConfig(
            olmoearth_model_id=self.encoder.model_id,
            vlm_model_id=vlm_model_id,
            vlm_revision=self.language.revision,
            olmoearth_revision=self.encoder.revision,
            use_vlm_vision=use_vlm_vision,
            freeze_olmoearth=freeze_olmoearth,
            freeze_vlm_vision=freeze_vlm_vision,
            use_lora=use_lora,
            lora_r=self.adapter.rank,
            lora_alpha=self.adapter.alpha,
            num_geo_queries=num_geo_queries,
            bands=tuple(bands),
            patch_size=self.encoder.patch_size,
            embedding_patch_size=embedding_patch_size or self.encoder.patch_size,
            scene_context=scene_context,
            english_only=english_only,
            segmentation_head=segmentation_head,
        )
        self._prepare_training(trainable, dtype)

    def _prepare_training(self, trainable: bool, dtype: torch.dtype | None) -> None:
        """Add the segmentation head and the adapter, and freeze what does not train."""
        config = self.config
        self.revision = unsaved_revision()
        self.language_model: nn.Module = self.language.model
        self.vision = self.language.vision
        head = SceneEmbeddingHead(self.encoder.dim, self.language.dim, SENTENCE_DIM)
        self.head = head.to(self.device)
        self.segmentation_head: SegmentationHead | None = None
        if config.segmentation_head:
            self.add_segmentation_head()
        self.encoder.requires_grad_(not config.freeze_olmoearth)
        if self.vision is not None:
            self.vision.requires_grad_(not config.freeze_vlm_vision)
            if trainable and dtype is None and not config.freeze_vlm_vision:
                self.vision.float()
        self.language_model.requires_grad_(trainable and not config.use_lora)
        if config.use_lora and trainable:
            self.language_model = add_adapter(self.language, self.adapter)

    @classmethod
    def from_config(
        cls,
        config: BridgeConfig,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        trainable: bool = True,
        adapter: AdapterConfig | None = None,
    ) -> Self:
        """Build the bridge that a configuration describes, with its own layers at random.

        Every constructor argument that has a configuration entry of the same name takes its value.
        Raises what the constructor does.
        """
        values = {f.name: getattr(config, f.name) for f in fields(config)}
        for name in ("olmoearth_revision", "vlm_revision"):
            if values[name] == LOCAL_REVISION:
                values[name] = None  # files in a folder have no revision to ask for
        accepted = inspect.signature(cls).parameters
        arguments = {name: value for name, value in values.items() if name in accepted}
        return cls(**arguments, device=device, dtype=dtype, trainable=trainable, adapter=adapter)

    @cached_property
    def memory(self) -> SceneMemory:
        """Contexts, maps and overviews of the scenes in use."""
        return SceneMemory()

    @property
    def device(self) -> torch.device:
        """The device of the weights, to which scenes are sent."""
        return self.fusion.queries.device

    @property
    def image_tokens(self) -> int:
        """How many of a scene's vectors are its picture's, which attend in both directions."""
        return 0 if self.vision is None else self.vision.num_tokens

    @property
    def prepare(self) -> Callable[[Scene], PreparedScene]:
        """The function that prepares a scene for `encode`; data loader workers can run it."""
        return partial(_prepare, self.encoder.prepare, self.vision.cut if self.vision else None)

    @property
    def prepare_to_embed(self) -> Callable[[Scene], PreparedScene]:
        """As `prepare`, with the patch size of the embedding head."""
        encode = partial(self.encoder.prepare, patch_size=self.config.embedding_patch_size)
        return partial(_prepare, encode, None)

    def encode(
        self, scenes: Sequence[PreparedScene], in_bfloat16: bool = False
    ) -> tuple[SceneTokens, Tensor]:
        """Encode scenes to OlmoEarth's tokens and to query outputs `[B, Q, D_text]`.

        in_bfloat16: let the CPU multiply most matrices in it; see `multiplies_bfloat16`.
        """
        tokens = self.encoder(scenes, in_bfloat16)
        return tokens, self.resample(tokens, in_bfloat16)

    def resample(self, tokens: SceneTokens, in_bfloat16: bool = False) -> Tensor:
        """Resample OlmoEarth's tokens to query outputs `[B, Q, D_text]`."""
        return self.fusion(tokens.tokens, tokens.positions, tokens.mask, in_bfloat16=in_bfloat16)

    @torch.inference_mode()
    def scene_prefix(self, scenes: Sequence[Scene]) -> Tensor:
        """Encode scenes as the vectors that the language model reads, `[B, S, D_text]`."""
        scenes = list(map(self.memory.overview, scenes))
        tokens = self.memory.tokens.pop(scenes[0], None) if len(scenes) == 1 else None
        prepared: list[PreparedScene] = []
        if tokens is None or self.vision is not None:
            prepared = [self.prepare(scene) for scene in scenes]
        if tokens is None:
            tokens = self.encoder(prepared, self.in_bfloat16)
        return self._prepend_picture(prepared, self.resample(tokens, self.in_bfloat16))

    @property
    def in_bfloat16(self) -> bool:
        """Whether prompts' scenes are in bfloat16: only where the language model computes in it."""
        is_fast = multiplies_bfloat16(self.device)
        return self.language.model.dtype == torch.bfloat16 and is_fast

    def write_context(self, scene: Scene | None) -> str:
        """Write a scene's context for its prompts; empty where the bridge reads none."""
        if scene is None or not self.config.scene_context:
            return ""
        contexts = self.memory.contexts
        if scene not in contexts:
            cover_map = self.map_land_cover(scene) if self.config.segmentation_head else None
            contexts[scene] = write_scene_context(scene, cover_map, measure(scene))
        return contexts[scene]

    def map_land_cover(self, scene: Scene) -> CoverMap:
        """Return the map that answers are drawn from; kept while the scene is in use.

        Scenes of more than OVERVIEW_PIXELS have one of fewer, larger pixels; see
        `segment` for each pixel's. Raises ValueError where the bridge has no segmentation head.
        """
        cover_maps = self.memory.cover_maps
        if scene not in cover_maps:
            cover_maps[scene] = self.segment(self.memory.overview(scene)).cover_map
        return cover_maps[scene]

    @fitting_threads()
    def segment(self, scene: Scene) -> Segmentation:
        """Map the land cover of each pixel of a scene of any size, with probabilities.

        These take 36 bytes a pixel; see `map_land_cover`. Raises ValueError where the bridge has no
        segmentation head.
        """
        if self.segmentation_head is None:
            raise ValueError("This bridge maps no land cover: it has no segmentation head.")
        found, tokens = segment_scene(self.encoder, self.segmentation_head, scene, self.in_bfloat16)
        self.memory.tokens.clear()
        self.memory.tokens[scene] = tokens
        return found

    def empty_prefix(self, count: int) -> Tensor:
        """What stands for the scenes of `count` prompts without one, `[count, 0, D_text]`."""
        return self.fusion.queries.new_zeros(count, 0, self.language.dim)

    def _prepend_picture(self, scenes: Sequence[PreparedScene], queries: Tensor) -> Tensor:
        """The tokens of each scene's picture, where pictures are used, and its query outputs."""
        if self.vision is None:
            return queries
        picture = self.vision([scene.picture for scene in scenes])
        return torch.cat([picture, queries.to(picture.dtype)], dim=1)

    def collate(
        self,
        scenes: Sequence[PreparedScene],
        prompts: Sequence[Prompt],
        tokens: SceneTokens | None = None,
    ) -> BridgeBatch:
        """Pad conversations into a batch; see `pad_batch`."""
        return pad_batch(scenes, prompts, tokens, self.language.stop_ids[0])

    def forward(self, batch: BridgeBatch) -> BridgeOutput:
        """Compute the loss on a batch's answers and the embeddings of its scenes."""
        tokens = batch.tokens
        tokens = self.encoder(batch.scenes) if tokens is None else tokens.to(self.device)
        queries = self.resample(tokens)
        prefix = self._prepend_picture(batch.scenes, queries)
        logits, labels = compute_answer_logits(self.language, batch, prefix, self.image_tokens)
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
        """Sum the negative log-likelihood of each conversation's answers, and count their tokens.

        scenes: one for each conversation, or None for the no-image baseline.
        """
        shown: Sequence[Scene | None] = scenes or [None] * len(conversations)
        contexts = [self.write_context(scene) for scene in shown]
        batch = self.collate([], list(map(self.language.encode, conversations, contexts)))
        prefix = self.scene_prefix(scenes) if scenes else self.empty_prefix(len(conversations))
        image_tokens = self.image_tokens if scenes else 0
        found = sum_answer_losses(self.language, batch, prefix, image_tokens)
        return found[0].tolist(), found[1].tolist()

    def add_segmentation_head(self) -> None:
        """Add a head that maps land cover, with random weights; the bridge needs training then."""
        head = SegmentationHead(self.encoder.dim, *self.encoder.normalized_range())
        self.segmentation_head = head.to(self.device)
        self.config = replace(self.config, segmentation_head=True)
        self.revision = unsaved_revision()

    def set_prompts(self, **entries: Any) -> None:
        """Change `scene_context` or `english_only`; a bridge needs training after the first."""
        self.config = replace(self.config, **entries)
        self.revision = unsaved_revision()

    def set_patch_sizes(self, patch_size: int, embedding_patch_size: int) -> None:
        """Change the pixels along a patch's side; the bridge needs training afterwards.

        Raises ValueError for a patch size that the encoder does not accept.
        """
        for size in (patch_size, embedding_patch_size):
            self.encoder.check_patch_size(size)
        self.encoder.patch_size = patch_size
        self.config = replace(
            self.config, patch_size=patch_size, embedding_patch_size=embedding_patch_size
        )
        self.revision = unsaved_revision()

    def record_training(
        self,
        trained_on: str,
        training: dict,
        training_tiles: TrainingStatistics | None = None,
    ) -> None:
        """Note in the configuration what the bridge was trained on, for the card and the app."""
        self.config = replace(
            self.config, trained_on=trained_on, training=training, training_tiles=training_tiles
        )


def unsaved_revision() -> str:
    """A unique revision for a bridge whose weights or settings are only in memory."""
    return f"unsaved-{uuid4().hex[:8]}"


def _prepare(
    encode: Callable[[Scene], PreparedScene],
    cut: Callable[[Image.Image], PictureCrops] | None,
    scene: Scene,
) -> PreparedScene:
    prepared = encode(shrink_scene(scene, OVERVIEW_PIXELS))
    return prepared if cut is None else replace(prepared, picture=cut(scene.composite()))


def _choose_language_dtype(
    dtype: torch.dtype | None, device: torch.device, trainable: bool, use_lora: bool
) -> torch.dtype | None:
    """The language model's type, None for `load_language_model`'s default.

    One that trains whole is float32, because its steps are smaller than bfloat16's rounding, and
    any where the CPU multiplies float32 faster. Raises ValueError for 8-bit training.
    """
    if trainable and dtype == torch.int8:
        raise ValueError("8-bit weights cannot be trained: leave dtype=torch.int8 out.")
    if not trainable or dtype is not None:
        return dtype
    slow = device.type == "cpu" and not multiplies_bfloat16(device)
    return torch.float32 if slow or not use_lora else None
