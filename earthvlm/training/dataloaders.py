"""What each stage of training learns from, in batches."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes import c_bool
from functools import partial
from multiprocessing import util
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import CaptionedScenes, are_labelled
from earthvlm.data.labels import SceneLabels
from earthvlm.models.olmoearth import SceneTokens, join_tokens
from earthvlm.models.text_encoder import embed_sentences
from earthvlm.storage.sharding import summon_full_params
from earthvlm.training.config import TrainingConfig
from earthvlm.training.encoded_scenes import (
    CROPS,
    MOSAICS,
    EncodedCrop,
    EncodedScene,
    EncodedScenes,
    FeatureMosaics,
    collate_encoded,
    collate_mosaics,
)
from earthvlm.training.feature_cache import FeatureCache
from earthvlm.training.sampler import (
    CROP_LAYOUTS,
    LAYOUTS,
    EpochSampler,
    Layout,
    SampleKey,
    balancing_weights,
)
from earthvlm.training.samples import Batch, FailedSample, Sample, TrainingSamples
from earthvlm.training.step import read_batches

# How often every tile is among what is encoded once for `--query_epochs`, and for
# `--retrieval_head_epochs`.
CROP_EPOCHS = 2
HEAD_CROP_EPOCHS = 8
HEAD_BATCH_SIZE = 256


class StageLoaders:
    """The batches of each stage, from the training tiles; those of validation from others.

    Each stage's method takes the model as it is trained, which may be in shards.
    Raises ValueError where the tiles lack the labels that an argument needs.
    """

    def __init__(
        self,
        bridge: OlmoEarthVLMBridge,
        config: TrainingConfig,
        accelerator: Accelerator,
        tiles: CaptionedScenes,
    ) -> None:
        self._bridge, self._config, self._accelerator = bridge, config, accelerator
        self._tiles = tiles
        self._ending = multiprocessing.RawValue(c_bool, False)
        # Before the workers get the SIGTERM that multiprocessing sends as this process ends.
        util.Finalize(None, setattr, (self._ending, "value", True), exitpriority=10)
        if config.class_balanced_sampling:
            self._need_labels("--class_balanced_sampling")

    def encoder(self, model: nn.Module) -> DataLoader:
        """Tiles, and few of them together: the encoder never sees more than a crop."""
        self._need_labels("--encoder_epochs")
        return self._loader(self._tiles, with_words=False, layouts=CROP_LAYOUTS)

    def queries(self, model: nn.Module) -> DataLoader:
        """Larger scenes put together from encoded crops; the encoder stays as it is."""
        self._need_labels("--query_epochs")
        mosaics = FeatureMosaics(self._encode_crops(model), self._config.seed)
        size = max(1, self._config.encoder_batch_size // 2)
        return DataLoader(
            mosaics,
            batch_size=size,
            sampler=self._sampler([crop.labels for crop in mosaics.crops], size, MOSAICS),
            collate_fn=collate_mosaics,
        )

    def head(self, model: nn.Module) -> DataLoader:
        """Many scenes at once, encoded and pooled; the search head alone learns of them."""
        scenes = self._pool_scenes(model)
        size = max(1, HEAD_BATCH_SIZE // self._accelerator.num_processes)
        return DataLoader(
            scenes,
            batch_size=size,
            sampler=self._sampler(scenes.labels, size, {(1, 1, 1): 1.0}),
            collate_fn=collate_encoded,
        )

    def bridge(self, model: nn.Module) -> DataLoader:
        """Conversations about tiles and what is put together from them."""
        cache = self._cache() if self._config.feature_cache_dir else None
        return self._loader(self._tiles, with_words=True, layouts=LAYOUTS, cache=cache)

    def validation(self, tiles: CaptionedScenes) -> DataLoader:
        """All of some tiles as they are, with conversations about them."""
        return self._loader(tiles, with_words=True, layouts=None)

    def _cache(self) -> FeatureCache:
        bridge, accelerator = self._bridge, self._accelerator
        if not bridge.config.freeze_olmoearth or bridge.vision is not None:
            raise ValueError("--feature_cache_dir needs --freeze_olmoearth, and no vision tower.")
        cache = FeatureCache(Path(self._config.feature_cache_dir), bridge.encoder, self._tiles)
        cache.fill(
            self._config.encoder_batch_size,
            accelerator.wait_for_everyone,
            accelerator.local_process_index,
            int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
            show_progress=self._accelerator.is_main_process,
        )
        return cache

    def _encode_crops(self, model: nn.Module) -> list[EncodedCrop]:
        crops = []
        band_sets = self._bridge.encoder.band_sets
        for batch, seen in self._encoded(model, CROPS, CROP_EPOCHS):
            for tokens, (rows, columns), labels in zip(
                seen.tokens, seen.grids, batch.labels, strict=True
            ):
                grid = tokens[: rows * columns * band_sets]
                grid = grid.unflatten(0, (rows, columns, band_sets))
                # On the CPU: a whole data set's do not fit a GPU.
                crops.append(EncodedCrop(grid.cpu().clone(), labels))
        return crops

    def _pool_scenes(self, model: nn.Module) -> EncodedScenes:
        bridge, scenes, labels = self._bridge, [], []
        bridge.fusion.eval()
        layouts = CROP_LAYOUTS if are_labelled(self._tiles.tiles) else {(1, 1, 1): 1.0}
        for batch, seen in self._encoded(model, layouts, HEAD_CROP_EPOCHS, to_embed=True):
            with torch.no_grad(), summon_full_params(model), self._accelerator.autocast():
                pooled = bridge.head.pool(bridge.resample(seen), seen.tokens, seen.mask)
            queries, tokens = (part.float().cpu() for part in pooled)
            places = torch.from_numpy(embed_sentences(batch.sentences, str(bridge.device)))
            scenes += map(EncodedScene, queries, tokens, batch.sentences, places)
            labels += batch.labels or [None] * batch.size
        return EncodedScenes(scenes, labels)

    def _encoded(
        self,
        model: nn.Module,
        layouts: Mapping[Layout, float],
        epochs: int,
        to_embed: bool = False,
    ) -> Iterator[tuple[Batch, SceneTokens]]:
        """Every tile some times, varied and put together, with what the encoder sees of it."""
        from tqdm import tqdm

        encoder = self._bridge.encoder.eval()
        loader = self._loader(self._tiles, with_words=False, layouts=layouts, to_embed=to_embed)
        for epoch in range(epochs):
            loader.sampler.epoch = epoch
            shown = tqdm(loader, desc="encoding", disable=not self._accelerator.is_main_process)
            for batch in read_batches(shown):
                with torch.no_grad(), summon_full_params(model):
                    seen = encoder(batch.scenes)
                yield batch, seen

    def _need_labels(self, argument: str) -> None:
        if not are_labelled(self._tiles.tiles):
            raise ValueError(f"{argument} needs a labels.json with every tile in --data_dir.")

    def _sampler(
        self,
        labels: list[SceneLabels | None],
        size: int,
        layouts: Mapping[Layout, float],
        length_of: Callable[[SampleKey], int] | None = None,
    ) -> EpochSampler:
        # Batches that all processes take at one time are of one layout.
        size *= self._accelerator.num_processes
        weights = balancing_weights(labels) if self._config.class_balanced_sampling else None
        return EpochSampler(len(labels), size, self._config.seed, layouts, weights, length_of)

    def _loader(
        self,
        tiles: CaptionedScenes,
        with_words: bool,
        layouts: Mapping[Layout, float] | None,
        cache: FeatureCache | None = None,
        to_embed: bool = False,
    ) -> DataLoader:
        """Tiles varied and put together, or, without layouts, as they are."""
        config = self._config
        size = config.batch_size if with_words else config.encoder_batch_size
        samples = TrainingSamples(tiles, self._bridge, config.seed, with_words, cache, to_embed)
        sampler = [SampleKey(0, index) for index in range(len(samples))]
        if layouts:
            length_of = samples.length_of if with_words else None
            sampler = self._sampler([t.labels for t in tiles.tiles], size, layouts, length_of)
        return DataLoader(
            samples,
            batch_size=size,
            sampler=sampler,
            collate_fn=self._collate,
            num_workers=config.num_workers,
            worker_init_fn=partial(_leave_ending_to_parent, self._ending),
            # Forked, workers share the bridge whose prompts they write; it is too large to send.
            multiprocessing_context="fork" if config.num_workers else None,
        )

    def _collate(self, samples: Sequence[Sample | FailedSample]) -> Batch | FailedSample:
        failed = [s for s in samples if isinstance(s, FailedSample)]
        if failed:
            return failed[0]
        try:
            return self._join(samples)
        except Exception as error:
            return FailedSample.of(error, f"{', '.join(s.name for s in samples)} make no batch")

    def _join(self, samples: Sequence[Sample]) -> Batch:
        scenes = [s.scene for s in samples if s.scene is not None]
        tokens = [s.tokens.float() for s in samples if s.tokens is not None]
        prompts = [s.prompt for s in samples if s.prompt is not None]
        labels = [s.labels for s in samples]
        seen = join_tokens(tokens) if tokens else None
        return Batch(
            bridge=self._bridge.collate(scenes, prompts, seen) if prompts else None,
            scenes=scenes,
            labels=None if None in labels else labels,
            sentences=[s.sentence for s in samples],
            names=[s.name for s in samples],
        )


def _leave_ending_to_parent(ending: c_bool, _: int) -> None:
    """Let a worker outlive the signals that a launcher or a terminal sends to every process.

    It reads on until the parent's step is done and saved. Only once the parent ends itself does
    SIGTERM, by which multiprocessing then ends its children, end the worker too.
    """

    def end(number: int, _: object) -> None:
        if ending.value:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
