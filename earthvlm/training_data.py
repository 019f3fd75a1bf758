"""Tiles made into what a training step takes: put together, varied, asked about."""

from __future__ import annotations

import datetime
import random
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from earthvlm.augmentation import augment, join_scenes
from earthvlm.bridge import BridgeBatch, OlmoEarthVLMBridge
from earthvlm.chatearthnet import ChatEarthNet
from earthvlm.conversations import (
    caption_conversation,
    search_sentence,
    write_conversation,
)
from earthvlm.encoder import PreparedScene, SceneTokens
from earthvlm.facts import SceneFacts
from earthvlm.prompts import Prompt
from earthvlm.scene import Scene
from earthvlm.token_cache import TokenCache, read_tokens

Layout = tuple[int, int, float]  # rows, columns, zoom
# How tiles are put together into larger scenes and zoomed, and how often.
LAYOUTS = {
    (1, 1, 1): 0.58,
    (1, 1, 0.75): 0.03,
    (1, 1, 1.5): 0.04,
    (2, 2, 1): 0.16,
    (1, 2, 1): 0.05,
    (2, 1, 1): 0.05,
    (3, 3, 1): 0.06,
    (4, 4, 1): 0.03,
}
# For the encoder alone, which never sees more than a crop: queries learn larger scenes later.
CROP_LAYOUTS = {
    (1, 1, 1): 0.75,
    (1, 1, 0.75): 0.03,
    (1, 1, 1.5): 0.04,
    (1, 2, 1): 0.04,
    (2, 1, 1): 0.04,
    (2, 2, 1): 0.1,
}
# So many tiles are shown as they are and placed beside their own caption, which is of that alone.
CAPTIONED = 0.5
# Conversations are sorted by length among so many batches: enough for little padding, few enough
# that batches differ from epoch to epoch.
LENGTH_WINDOW = 16


@dataclass(frozen=True)
class Sample:
    """A scene made ready in a worker. facts is None where only its caption is known.

    tokens: what the encoder saw of it, `[rows, columns, band sets, D]`, instead of the scene.
    """

    scene: PreparedScene | None
    prompt: Prompt | None
    facts: SceneFacts | None
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
    facts: list[SceneFacts] | None
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


@dataclass(frozen=True)
class SampleKey:
    """Which sample is wanted: its epoch, its place in the data, and its layout or None."""

    epoch: int
    index: int
    layout: Layout | None = None


class EpochSampler(Sampler[SampleKey]):
    """Every index once an epoch, shuffled by the seed; what shares a batch is of one size.

    Scenes of one layout need no padding, conversations of about one length little. The epoch
    travels with the index, so that workers draw new variations in each, the same ones whatever
    their number.

    weights: how often each index is drawn, beside the others; some then come twice, some not.
    length_of: about how long a sample's conversation is.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        layouts: Mapping[Layout, float] = LAYOUTS,
        weights: np.ndarray | None = None,
        length_of: Callable[[SampleKey], int] | None = None,
    ) -> None:
        self.length, self.batch_size, self.seed, self.epoch = length, batch_size, seed, 0
        self.layouts, self.length_of = layouts, length_of
        self.odds = None if weights is None else weights / weights.sum()
        # Of this epoch, by an earlier run that this one goes on from: how many samples were used,
        # and up to which of them batches had another size than now.
        self.used = 0
        self.earlier: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[SampleKey]:
        numbers = np.random.default_rng((self.seed, self.epoch))
        if self.odds is None:
            order = numbers.permutation(self.length)
        else:
            order = numbers.choice(self.length, self.length, p=self.odds)
        start = 0
        for used, size in (*self.earlier, (self.length, self.batch_size)):
            if self.length_of is not None:
                order[start:] = self._by_length(order[start:], size, numbers)
            first, start = start, used
        kinds, odds = tuple(self.layouts), np.array(tuple(self.layouts.values()))
        drawn = numbers.choice(len(odds), p=odds / odds.sum(), size=self.length)
        for place, index in tuple(enumerate(order))[self.used :]:
            layout = kinds[drawn[(place - first) // self.batch_size]]
            yield SampleKey(self.epoch, int(index), layout)

    def _by_length(self, order: np.ndarray, size: int, numbers: np.random.Generator) -> np.ndarray:
        """Sorted by length within windows of some batches; the batches then in any order."""
        batches = []
        for window in np.split(
            order, range(LENGTH_WINDOW * size, len(order), LENGTH_WINDOW * size)
        ):
            lengths = [self.length_of(SampleKey(self.epoch, int(index))) for index in window]
            window = window[np.argsort(lengths, kind="stable")]
            batches += np.split(window, range(size, len(window), size))
        # A last batch that is not full stays last.
        full = len(order) // size
        return np.concatenate(
            [batches[i] for i in (*numbers.permutation(full), *range(full, len(batches)))]
        )


def balancing_weights(facts: Sequence[SceneFacts]) -> np.ndarray:
    """Weights `[N]` that draw scenes of a rare dominant land cover more often.

    In inverse proportion to the square root of how many there are: what covers 3 percent of the
    scenes is then seen enough to be told apart, and what covers most still comes most.
    """
    dominants = [f.dominant for f in facts]
    counts = Counter(dominants)
    return np.array([counts[dominant] ** -0.5 for dominant in dominants])


class TrainingSamples(Dataset):
    """Tiles made into samples: put together, varied, asked about.

    bridge: gives the encoder's preparation and the language model's prompt format.
    with_words: False prepares scenes and facts alone, for the encoder's own training.
    cache: what the encoder saw of the tiles as they are; they are then not varied.
    to_embed: prepare scenes as the search head sees them.
    """

    def __init__(
        self,
        tiles: ChatEarthNet,
        bridge: OlmoEarthVLMBridge,
        seed: int,
        with_words: bool = True,
        cache: TokenCache | None = None,
        to_embed: bool = False,
    ) -> None:
        self.tiles, self.seed, self.with_words = tiles, seed, with_words
        self.tokens_file = None if cache is None else cache.path
        # Only what workers need: bound methods would carry the language model along.
        self.prepare = bridge.prepare_to_embed if to_embed else bridge.prepare
        self.encode = bridge.language.encode
        self.alike: dict[str, list[int]] = defaultdict(list)
        for index, tile in enumerate(tiles):
            if tile.facts is not None:
                self.alike[tile.facts.dominant].append(index)

    def __len__(self) -> int:
        return len(self.tiles)

    def length_of(self, key: SampleKey) -> int:
        """About how many characters a sample's conversation has, without reading its pixels."""
        tile = self.tiles.tiles[key.index]
        rng, _ = self._draw(key)
        if tile.facts is None:
            return len(rng.choice(tile.captions))
        return sum(len(message["content"]) for message in write_conversation(tile.facts, rng))

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
        scene, facts = None, tile.facts
        alone = key.layout in (None, (1, 1, 1))
        captioned = facts is None or (alone and numbers.random() < CAPTIONED)
        if self.tokens_file is None:
            scene = self.tiles.read(tile)
            if not captioned and key.layout is not None:
                scene, facts = self._vary(scene, facts, key.layout, numbers)
            scene = self.prepare(scene)
        if facts is None:
            sentence = rng.choice(tile.captions)
            messages = caption_conversation(sentence, rng)
        else:
            messages = write_conversation(facts, rng) if self.with_words else []
            sentence = rng.choice(tile.captions) if captioned else search_sentence(facts, rng)
        prompt = self.encode(messages) if self.with_words else None
        tokens = read_tokens(self.tokens_file, key.index) if self.tokens_file else None
        return Sample(scene, prompt, facts, sentence, tile.name, tokens)

    def _vary(
        self,
        scene: Scene,
        facts: SceneFacts,
        layout: Layout,
        numbers: np.random.Generator,
    ) -> tuple[Scene, SceneFacts]:
        rows, columns, zoom = layout
        pieces = [(scene, facts)]
        # Neighbours are often of one kind, as in a real scene; any tile else.
        pool = self.alike[facts.dominant] if numbers.random() < 0.5 else range(len(self.tiles))
        for index in numbers.choice(pool, size=rows * columns - 1):
            other, tile = self.tiles[int(index)]
            pieces.append((other, tile.facts))
        numbers.shuffle(pieces)
        grid = [pieces[r * columns : (r + 1) * columns] for r in range(rows)]
        scene, facts = augment(*join_scenes(grid), numbers, zoom)
        year, month, day = numbers.integers((2016, 1, 1), (2026, 13, 29))
        return replace(scene, date=datetime.date(int(year), int(month), int(day))), facts
