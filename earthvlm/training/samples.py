"""Tiles made into what a training step takes: put together, varied, asked about."""

from __future__ import annotations

import datetime
import random
import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from earthvlm.bridge.batch import BridgeBatch
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.augmentation import augment, join_scenes
from earthvlm.data.captioned_scenes import CaptionedScenes
from earthvlm.data.labels import SceneLabels
from earthvlm.data.question_answering import (
    caption_conversation,
    search_sentence,
    write_questions_and_answers,
)
from earthvlm.models.chat_templates import Prompt
from earthvlm.models.olmoearth import PreparedScene, SceneTokens
from earthvlm.scenes.scene import Scene
from earthvlm.training.feature_cache import FeatureCache, read_tokens
from earthvlm.training.sampler import Layout, SampleKey

# So many tiles are shown as they are and placed beside their own caption, which is of that alone.
CAPTIONED = 0.5


@dataclass(frozen=True)
class Sample:
    """A scene made ready in a worker. labels is None where only its caption is known.

    tokens: what the encoder saw of it, `[rows, columns, band sets, D]`, instead of the scene.
    """

    scene: PreparedScene | None
    prompt: Prompt | None
    labels: SceneLabels | None
    sentence: str
    name: str
    tokens: Tensor | None = None


@dataclass(frozen=True)
class FailedSample:
    """Why a sample could not be made, in one sentence.

    Returned in its place, because torch would put a worker's traceback into an exception's text.
    """

    reason: str

    @classmethod
    def of(cls, error: Exception, what: str) -> FailedSample:
        """Describe an exception; one that no user causes with its type and where it was raised."""
        text = str(error).strip().rstrip(".")
        if not isinstance(error, ValueError | OSError) or not text:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"
        return cls(f"{what}: {text}.")


@dataclass(frozen=True)
class Batch:
    """Samples with their conversations padded together.

    tokens: what the encoder saw, where that is known already; scenes are then not needed.
    pooled: what the search head reads, where nothing else is to learn.
    sentence_embeddings: where the sentences lie, `[B, D_sentence]`, where that is known already.
    names: of the samples' tiles, for messages.
    """

    bridge: BridgeBatch | None
    scenes: list[PreparedScene]
    labels: list[SceneLabels] | None
    sentences: list[str]
    tokens: SceneTokens | None = None
    pooled: tuple[Tensor, Tensor] | None = None
    sentence_embeddings: Tensor | None = None
    names: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many scenes there are."""
        return len(self.sentences)

    @property
    def answer_tokens(self) -> int:
        """How many tokens are scored."""
        return 0 if self.bridge is None else int((self.bridge.labels != -100).sum())


class TrainingSamples(Dataset):
    """Tiles made into samples: put together, varied, asked about.

    bridge: gives the encoder's preparation and the language model's prompt format.
    with_words: False prepares scenes and labels alone, for the encoder's own training.
    cache: what the encoder saw of the tiles as they are; they are then not varied.
    to_embed: prepare scenes as the search head sees them.
    """

    def __init__(
        self,
        tiles: CaptionedScenes,
        bridge: OlmoEarthVLMBridge,
        seed: int,
        with_words: bool = True,
        cache: FeatureCache | None = None,
        to_embed: bool = False,
    ) -> None:
        self.tiles, self.seed, self.with_words = tiles, seed, with_words
        self.tokens_file = None if cache is None else cache.path
        # Only what workers need: bound methods would carry the language model along.
        self.prepare = bridge.prepare_to_embed if to_embed else bridge.prepare
        self.encode = bridge.language.encode
        self.alike: dict[str, list[int]] = defaultdict(list)
        for index, tile in enumerate(tiles.tiles):
            if tile.labels is not None:
                self.alike[tile.labels.dominant].append(index)

    def __len__(self) -> int:
        return len(self.tiles)

    def length_of(self, key: SampleKey) -> int:
        """About how many characters a sample's conversation has, without reading its pixels."""
        tile = self.tiles.tiles[key.index]
        rng, _ = self._draw(key)
        if tile.labels is None:
            return len(rng.choice(tile.captions))
        return sum(
            len(message["content"]) for message in write_questions_and_answers(tile.labels, rng)
        )

    def _draw(self, key: SampleKey) -> tuple[random.Random, np.random.Generator]:
        """Random numbers for the words and for the pixels of a sample."""
        numbers = np.random.default_rng((self.seed, key.epoch, key.index))
        return random.Random(int(numbers.integers(2**63))), numbers

    def __getitems__(self, keys: Sequence[SampleKey]) -> list[Sample | FailedSample]:
        """The samples of a batch, as torch's loader asks for them."""
        samples: list[Sample | FailedSample] = []
        for key in keys:
            try:
                samples.append(self[key])
            except Exception as error:
                name = self.tiles.tiles[key.index].name
                samples.append(FailedSample.of(error, f"{name} cannot be used"))
        return samples

    def __getitem__(self, key: SampleKey) -> Sample:
        rng, numbers = self._draw(key)
        tile = self.tiles.tiles[key.index]
        scene, labels = None, tile.labels
        alone = key.layout in (None, (1, 1, 1))
        captioned = labels is None or (alone and numbers.random() < CAPTIONED)
        if self.tokens_file is None:
            scene = self.tiles.read(tile)
            if not captioned and key.layout is not None:
                scene, labels = self._vary(scene, labels, key.layout, numbers)
            scene = self.prepare(scene)
        if labels is None:
            sentence = rng.choice(tile.captions)
            messages = caption_conversation(sentence, rng)
        else:
            messages = write_questions_and_answers(labels, rng) if self.with_words else []
            sentence = rng.choice(tile.captions) if captioned else search_sentence(labels, rng)
        prompt = self.encode(messages) if self.with_words else None
        tokens = read_tokens(self.tokens_file, key.index) if self.tokens_file else None
        return Sample(scene, prompt, labels, sentence, tile.name, tokens)

    def _vary(
        self,
        scene: Scene,
        labels: SceneLabels,
        layout: Layout,
        numbers: np.random.Generator,
    ) -> tuple[Scene, SceneLabels]:
        rows, columns, zoom = layout
        pieces = [(scene, labels)]
        # Neighbours are often of one kind, as in a real scene; any tile else.
        pool = self.alike[labels.dominant] if numbers.random() < 0.5 else range(len(self.tiles))
        for index in numbers.choice(pool, size=rows * columns - 1):
            tile = self.tiles.tiles[int(index)]
            pieces.append((self.tiles.read(tile), tile.labels))
        numbers.shuffle(pieces)
        grid = [pieces[r * columns : (r + 1) * columns] for r in range(rows)]
        scene, labels = augment(*join_scenes(grid), numbers, zoom)
        year, month, day = numbers.integers((2016, 1, 1), (2026, 13, 29))
        return replace(scene, date=datetime.date(int(year), int(month), int(day))), labels
