"""The data loaders of each stage of training."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ctypes import c_bool
from functools import partial
from multiprocessing import util
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import CaptionedScenes, Tile, are_labelled
from earthvlm.data.labelled_patches import LabelFile, LabelledPatches
from earthvlm.data.labels import SceneLabels
from earthvlm.models.olmoearth import SceneTokens
from earthvlm.models.text_encoder import embed_sentences
from earthvlm.storage.sharding import summon_full_params
from earthvlm.training.batches.encoded_scenes import (
    CROPS,
    MOSAICS,
    SINGLE,
    EncodedCrop,
    EncodedScene,
    EncodedScenes,
    FeatureMosaics,
    collate_encoded,
    collate_mosaics,
)
from earthvlm.training.batches.feature_cache import FeatureCache
from earthvlm.training.batches.mapped_scenes import MappedScenes, SceneMapper
from earthvlm.training.batches.pixel_samples import LAYOUTS as PIXEL_LAYOUTS
from earthvlm.training.batches.pixel_samples import PixelSamples, collate_pixels
from earthvlm.training.batches.sampler import (
    CROP_LAYOUTS,
    LAYOUTS,
    EpochSampler,
    Layout,
    SampleKey,
    balancing_weights,
)
from earthvlm.training.batches.samples import (
    Batch,
    FailedSample,
    Sample,
    TrainingSamples,
    collate_samples,
)
from earthvlm.training.config import TrainingConfig
from earthvlm.training.step import read_batches

# How many augmented versions of every tile are encoded for `--query_epochs` and for
# `--retrieval_head_epochs`.
CROP_EPOCHS = 2
HEAD_CROP_EPOCHS = 8
HEAD_BATCH_SIZE = 256
# Windows has no fork, and libraries of macOS fail in a forked process.
CAN_FORK = sys.platform == "linux"


class StageLoaders:
    """The data loaders of a run: one method for each stage, and one for validation.

    The methods of the stages take the training model, which may be sharded. They raise ValueError
    if the tiles lack the labels that the stage needs.

    mapper: maps land cover for samples, as the bridge did when the stage began; None if none does.
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
        self.mapper: SceneMapper | None = None
        self._drawn: MappedScenes | None = None
        self._num_workers = config.num_workers if CAN_FORK else 0
        if self._num_workers < config.num_workers:
            accelerator.print("This system forks no workers: the training process reads the tiles.")
        self._ending = multiprocessing.RawValue(c_bool, False)
        # Set before multiprocessing sends SIGTERM to the workers as this process ends.
        util.Finalize(None, setattr, (self._ending, "value", True), exitpriority=10)
        if config.class_balanced_sampling:
            self._require_labels("--class_balanced_sampling")

    def encoder(self, model: nn.Module) -> DataLoader:
        """Tiles without conversations, mostly single ones, to train the encoder on."""
        self._require_labels("--encoder_epochs")
        return self._loader(self._tiles, with_words=False, layouts=CROP_LAYOUTS)

    def segmentation(self, model: nn.Module) -> DataLoader:
        """Tiles and labelled patches, to train the encoder and the segmentation head on."""
        self._require_labels("--segmentation_epochs")
        samples, size = self._draw_pixels(), self._config.encoder_batch_size
        sampler = self._sampler([t.labels for t in self._tiles.tiles], size, PIXEL_LAYOUTS)
        return DataLoader(
            samples, size, sampler=sampler, collate_fn=collate_pixels, **self._worker_options()
        )

    def _draw_pixels(self) -> PixelSamples:
        config, bridge = self._config, self._bridge
        patches = None
        if config.patches_dir:
            labels = LabelFile.read(config.patch_labels) if config.patch_labels else LabelFile()
            patches = LabelledPatches(config.patches_dir, labels)
        return PixelSamples(
            self._tiles, patches, bridge.encoder.prepare, bridge.config.patch_size, config.seed
        )

    def _map_scenes(self, model: nn.Module) -> None:
        """Let samples show maps and drawn scenes from now on, where a trained head can map them."""
        if self._bridge.segmentation_head is None:
            return
        with summon_full_params(model):
            self.mapper = SceneMapper(self._bridge)
        if are_labelled(self._tiles.tiles):
            self._drawn = MappedScenes(self._draw_pixels(), self.mapper)

    def queries(self, model: nn.Module) -> DataLoader:
        """Feature mosaics of encoded crops, to train the queries on."""
        self._require_labels("--query_epochs")
        self._map_scenes(model)
        mosaics = FeatureMosaics(self._encode_crops(model), self._config.seed)
        size = max(1, self._config.encoder_batch_size // 2)
        return DataLoader(
            mosaics,
            batch_size=size,
            sampler=self._sampler([crop.labels for crop in mosaics.crops], size, MOSAICS),
            collate_fn=collate_mosaics,
        )

    def head(self, model: nn.Module) -> DataLoader:
        """Large batches of pooled scenes, to train the search head on."""
        self._map_scenes(model)
        scenes = self._pool_scenes(model)
        size = max(1, HEAD_BATCH_SIZE // self._accelerator.num_processes)
        return DataLoader(
            scenes,
            batch_size=size,
            sampler=self._sampler(scenes.labels, size, {SINGLE: 1.0}),
            collate_fn=collate_encoded,
        )

    def bridge(self, model: nn.Module) -> DataLoader:
        """Conversations about tiles and scenes joined from them, to train the bridge on."""
        self._map_scenes(model)
        folder = self._config.feature_cache_dir
        cache = self._cache(Path(folder)) if folder else None
        return self._loader(self._tiles, with_words=True, layouts=LAYOUTS, cache=cache)

    def validation(self, tiles: CaptionedScenes) -> DataLoader:
        """All the given tiles, not augmented, with conversations about them."""
        return self._loader(tiles, with_words=True, layouts=None)

    def _cache(self, folder: Path) -> FeatureCache:
        bridge, accelerator = self._bridge, self._accelerator
        if not bridge.config.freeze_olmoearth or bridge.vision is not None:
            raise ValueError("--feature_cache_dir needs --freeze_olmoearth, and no vision tower.")
        cache = FeatureCache(folder, bridge.encoder, self._tiles)
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
        for batch, encoded in self._encode(model, CROPS, CROP_EPOCHS):
            for tokens, (rows, columns), labels in zip(
                encoded.tokens, encoded.grids, batch.labels or (), strict=True
            ):
                grid = tokens[: rows * columns * band_sets]
                grid = grid.unflatten(0, (rows, columns, band_sets))
                # On the CPU, because those of a whole dataset do not fit in a GPU.
                crops.append(EncodedCrop(grid.cpu().clone(), labels))
        return crops

    def _pool_scenes(self, model: nn.Module) -> EncodedScenes:
        if not all(tile.labels or tile.captions for tile in self._tiles.tiles):
            raise ValueError("--retrieval_head_epochs needs a caption or labels with every tile.")
        bridge = self._bridge
        scenes: list[EncodedScene] = []
        labels: list[SceneLabels | None] = []
        bridge.fusion.eval()
        layouts = CROP_LAYOUTS if are_labelled(self._tiles.tiles) else {SINGLE: 1.0}
        for batch, encoded in self._encode(model, layouts, HEAD_CROP_EPOCHS, to_embed=True):
            with torch.no_grad(), summon_full_params(model), self._accelerator.autocast():
                pooled = bridge.head.pool(bridge.resample(encoded), encoded.tokens, encoded.mask)
            queries, tokens = (part.float().cpu() for part in pooled)
            sentences = torch.from_numpy(embed_sentences(batch.sentences, str(bridge.device)))
            scenes += map(EncodedScene, queries, tokens, batch.sentences, sentences)
            labels.extend(batch.labels or [None] * batch.size)
        return EncodedScenes(scenes, labels)

    def _encode(
        self,
        model: nn.Module,
        layouts: Mapping[Layout, float],
        epochs: int,
        to_embed: bool = False,
    ) -> Iterator[tuple[Batch, SceneTokens]]:
        """Augmented batches of every tile, some epochs long, with the encoder's tokens."""
        from tqdm import tqdm

        encoder = self._bridge.encoder.eval()
        loader = self._loader(self._tiles, with_words=False, layouts=layouts, to_embed=to_embed)
        sampler = cast("EpochSampler", loader.sampler)
        for epoch in range(epochs):
            sampler.epoch = epoch
            hidden = not self._accelerator.is_main_process
            for batch in read_batches(tqdm(loader, desc="encoding", disable=hidden)):
                with torch.no_grad(), summon_full_params(model):
                    encoded = encoder(batch.scenes)
                yield batch, encoded

    def _require_labels(self, argument: str) -> None:
        if not are_labelled(self._tiles.tiles):
            raise ValueError(f"{argument} needs a labels.json with every tile in --data_dir.")

    def _sampler(
        self,
        labels: Sequence[SceneLabels | None],
        size: int,
        layouts: Mapping[Layout, float],
        length_of: Callable[[SampleKey], int] | None = None,
        tiles: Sequence[Tile] = (),
    ) -> EpochSampler:
        # The batches that all processes take at the same time have one layout.
        size *= self._accelerator.num_processes
        weights = None
        if self._config.class_balanced_sampling:
            weights = balancing_weights([known for known in labels if known is not None])
        if len({tile.weight for tile in tiles}) > 1:
            given = np.array([tile.weight for tile in tiles])
            weights = given if weights is None else given * weights
        shards = [tile.shard for tile in tiles] if len({t.shard for t in tiles}) > 1 else None
        return EpochSampler(
            len(labels), size, self._config.seed, layouts, weights, length_of, shards
        )

    def _loader(
        self,
        tiles: CaptionedScenes,
        with_words: bool,
        layouts: Mapping[Layout, float] | None,
        cache: FeatureCache | None = None,
        to_embed: bool = False,
    ) -> DataLoader:
        """A loader of joined and augmented tiles, or, without layouts, of single tiles."""
        config = self._config
        size = config.batch_size if with_words else config.encoder_batch_size
        samples = TrainingSamples(
            tiles,
            self._bridge,
            config.seed,
            with_words,
            cache,
            to_embed,
            self.mapper,
            self._drawn,
            config.context_share,
            config.follow_map,
        )
        sampler: Iterable[SampleKey] = [SampleKey(0, index) for index in range(len(samples))]
        if layouts:
            length_of = samples.length_of if with_words else None
            labels = [tile.labels for tile in tiles.tiles]
            sampler = self._sampler(labels, size, layouts, length_of, tiles.tiles)
        return DataLoader(
            samples,
            batch_size=size,
            sampler=sampler,
            collate_fn=self._collate,
            **self._worker_options(),
        )

    def _worker_options(self) -> dict[str, Any]:
        return {
            "num_workers": self._num_workers,
            "worker_init_fn": partial(_keep_worker_alive, self._ending),
            # Forked workers share the bridge's memory; it is too large to send to them.
            "multiprocessing_context": "fork" if self._num_workers else None,
        }

    def _collate(self, samples: Sequence[Sample | FailedSample]) -> Batch | FailedSample:
        prepared = []
        for sample in samples:
            if isinstance(sample, FailedSample):
                return sample
            prepared.append(sample)
        try:
            return collate_samples(self._bridge, prepared)
        except Exception as error:
            names = ", ".join(sample.name for sample in prepared)
            return FailedSample.of(error, f"{names} cannot be joined into a batch")


def _keep_worker_alive(ending: c_bool, _: int) -> None:
    """Let a worker survive the signals that a launcher or a terminal sends to every process.

    It prepares batches until the parent has finished and saved its step. Once the parent ends,
    multiprocessing sends SIGTERM to its children, which then ends the worker.
    """

    def end(number: int, _: object) -> None:
        if ending.value:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
