"""Samples and batches: tiles joined into scenes, augmented, and asked about."""

from __future__ import annotations

import datetime
import random
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from earthvlm.bridge.batch import BridgeBatch
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.scene_context import write_scene_context
from earthvlm.data.augmentation import augment, join_scenes
from earthvlm.data.captioned_scenes import CaptionedScenes, draw_conversation
from earthvlm.data.labels import SceneLabels
from earthvlm.data.pixel_labels import PixelLabels
from earthvlm.data.questions.question_answering import write_questions_and_answers
from earthvlm.data.questions.scene_sentences import search_sentence
from earthvlm.models.language.chat_templates import Prompt
from earthvlm.models.olmoearth import PreparedScene, SceneTokens, join_tokens
from earthvlm.scenes.analysis.spectral_indices import measure
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.scene import Scene
from earthvlm.training.batches.feature_cache import FeatureCache, read_tokens
from earthvlm.training.batches.sampler import Layout, SampleKey

# The share of single tiles that keep their caption, which is true of the unaugmented tile alone.
CAPTIONED = 0.5
# The share of contexts with another scene's map: the answers then follow the pixels.
WITH_WRONG_MAP = 0.1
CONTEXT_CHARACTERS = 450  # about how long a context is
# The share of joined scenes that are given a place and a pixel size, for questions about these.
PLACED = 0.7
# The share of samples that are drawn scenes, where there is something to draw them.
DRAWN = 0.4
DrawScene = Callable[[SampleKey], tuple[str, Scene, SceneLabels]]
# Tiles of which layout stay single; see `Layout`.
SINGLE = (None, (1, 1, 1))


@dataclass(frozen=True)
class Sample:
    """A scene prepared by a data loader process.

    labels: None where the tile has only captions and conversations.
    sentence: should retrieve the scene; "" where nothing describes it.
    tokens: the encoder's cached tokens `[rows, columns, band sets, D_olmo]`, instead of the scene.
    """

    scene: PreparedScene | None
    prompt: Prompt | None
    labels: SceneLabels | None
    sentence: str
    name: str
    tokens: Tensor | None = None


@dataclass(frozen=True)
class FailedSample:
    """Why a sample could not be prepared, in one sentence.

    Returned instead of the sample, because torch adds a worker's traceback to exceptions.
    """

    reason: str

    @classmethod
    def of(cls, error: Exception, what: str) -> FailedSample:
        """Describe an exception; one that no user causes also with its type and origin."""
        text = str(error).strip().rstrip(".")
        if not isinstance(error, ValueError | OSError) or not text:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"
        return cls(f"{what}: {text}.")


@dataclass(frozen=True)
class Batch:
    """Samples of one step, with their conversations padded together.

    tokens: the encoder's output, if it is cached; scenes are then empty.
    pooled: the search head's inputs, if nothing else trains.
    sentence_embeddings: `[B, D_sentence]`, if they are cached.
    pixel_labels: of each scene, for the segmentation head, which reads no sentences.
    names: the tiles' names, for messages.
    """

    bridge: BridgeBatch | None
    scenes: list[PreparedScene]
    labels: list[SceneLabels] | None
    sentences: list[str]
    tokens: SceneTokens | None = None
    pooled: tuple[Tensor, Tensor] | None = None
    sentence_embeddings: Tensor | None = None
    pixel_labels: list[PixelLabels] | None = None
    names: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The number of scenes."""
        return len(self.sentences) or len(self.scenes)

    @property
    def answer_tokens(self) -> int:
        """The number of tokens that the caption loss counts."""
        return 0 if self.bridge is None else int((self.bridge.labels != -100).sum())


_SampleT = TypeVar("_SampleT")


class TileSamples(Dataset[_SampleT]):
    """Samples of tiles, by `SampleKey`; a tile that cannot be used becomes a `FailedSample`."""

    def __init__(self, tiles: CaptionedScenes) -> None:
        self.tiles = tiles

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitems__(self, keys: Sequence[SampleKey]) -> list[_SampleT | FailedSample]:
        """The samples of a batch, in one call by torch's data loader."""
        samples: list[_SampleT | FailedSample] = []
        for key in keys:
            try:
                samples.append(self[key])
            except Exception as error:
                name = self.tiles.tiles[key.index].name
                samples.append(FailedSample.of(error, f"{name} cannot be used"))
        return samples


class TrainingSamples(TileSamples[Sample]):
    """Samples of tiles, by `SampleKey`.

    Args:
        bridge: provides the encoder's preparation and the language model's prompt format.
        with_words: False prepares scenes and labels only, for the encoder's stage.
        cache: the encoder's tokens of the tiles, which are then not augmented.
        to_embed: prepare scenes in the patches of search embeddings.
        mapper: maps a scene's land cover for the context of its prompt; None leaves maps out.
        draw_scene: draws another scene than a tile, with its name and labels, for some samples.
        context_share: of the samples whose prompt holds the scene's context, where the bridge reads
            one; the others make the queries matter.
        follow_map: answers follow the map in the context, right or wrong, and none is exchanged.
    """

    def __init__(
        self,
        tiles: CaptionedScenes,
        bridge: OlmoEarthVLMBridge,
        seed: int,
        with_words: bool = True,
        cache: FeatureCache | None = None,
        to_embed: bool = False,
        mapper: Callable[[Scene], CoverMap] | None = None,
        draw_scene: DrawScene | None = None,
        context_share: float = 0.5,
        follow_map: bool = False,
    ) -> None:
        super().__init__(tiles)
        self.seed, self.with_words = seed, with_words
        self.tokens_file = None if cache is None else cache.path
        # Only what workers need: a bound method would send them the language model.
        self.prepare = bridge.prepare_to_embed if to_embed else bridge.prepare
        self.encode = bridge.language.encode
        self.context_share = context_share if bridge.config.scene_context else 0.0
        self.mapper, self.draw_scene, self.follow_map = mapper, draw_scene, follow_map
        self.labelled: list[int] = []
        self.by_dominant: dict[str, list[int]] = defaultdict(list)
        for index, tile in enumerate(tiles.tiles):
            if tile.labels is not None:
                self.labelled.append(index)
                self.by_dominant[tile.labels.dominant].append(index)

    def length_of(self, key: SampleKey) -> int:
        """The approximate characters of a sample's conversation, without reading its pixels."""
        tile = self.tiles.tiles[key.index]
        rng, _ = self._draw(key)
        length = CONTEXT_CHARACTERS if self._draw_context(key)[0] else 0
        if tile.labels is None:
            messages, _ = draw_conversation(tile, rng)
        else:
            messages = write_questions_and_answers(tile.labels, rng)
        return length + sum(len(message["content"]) for message in messages)

    def _draw(self, key: SampleKey) -> tuple[random.Random, np.random.Generator]:
        """Random number generators for the words and for the pixels of a sample."""
        numbers = np.random.default_rng((self.seed, key.epoch, key.index))
        return random.Random(int(numbers.integers(2**63))), numbers

    def _draw_context(self, key: SampleKey) -> tuple[bool, bool]:
        """Whether a sample's prompt has a context, and whether the map in that is wrong."""
        numbers = np.random.default_rng((self.seed, key.epoch, key.index, 1))
        given, wrong = numbers.random(2) < (self.context_share, WITH_WRONG_MAP)
        return bool(given), bool(wrong) and not self.follow_map

    def __getitem__(self, key: SampleKey) -> Sample:
        rng, numbers = self._draw(key)
        tile = self.tiles.tiles[key.index]
        name, scene, labels, captioned = self._read(key, numbers)
        prepared = None if scene is None else self.prepare(scene)
        context, scene, asked, has_map = self._write_context(key, scene, labels)
        sentence = ""
        if labels is None or (captioned and tile.conversations):
            messages, sentence = draw_conversation(tile, rng)
        else:
            messages = write_questions_and_answers(asked or labels, rng, scene, has_map)
            sentence = rng.choice(tile.captions) if captioned else ""
        if labels is not None and not sentence:
            sentence = search_sentence(labels, rng)
        prompt = self.encode(messages, context) if self.with_words else None
        tokens = read_tokens(self.tokens_file, key.index) if self.tokens_file else None
        return Sample(prepared, prompt, labels, sentence, name, tokens)

    def _read(
        self, key: SampleKey, numbers: np.random.Generator
    ) -> tuple[str, Scene | None, SceneLabels | None, bool]:
        """A sample's name, its scene unless tokens stand for it, its labels, whether it is a tile.

        A scene that was changed is no longer what the tile's captions and conversations are about.
        """
        tile = self.tiles.tiles[key.index]
        can_draw = key.layout is not None and self.tokens_file is None
        if self.draw_scene is not None and can_draw and numbers.random() < DRAWN:
            return *self.draw_scene(key), False
        labels = tile.labels
        single = key.layout in SINGLE
        captioned = labels is None or (single and numbers.random() < CAPTIONED)
        captioned = captioned and bool(tile.captions or tile.conversations)
        if self.tokens_file is not None:
            return tile.name, None, labels, captioned
        scene = self.tiles.read(tile)
        if labels is not None and not captioned and key.layout is not None:
            scene, labels = self._augment(scene, labels, key.layout, numbers)
        return tile.name, scene, labels, captioned

    def _write_context(
        self, key: SampleKey, scene: Scene | None, labels: SceneLabels | None
    ) -> tuple[str, Scene | None, SceneLabels | None, bool]:
        """The context of a sample's prompt, its scene, the labels that answers follow.

        Last whether the map in it can be relied on. Without context, the scene is None. Answers
        follow the map wherever it is about right: what users read next to it then agrees with it,
        and copying is quickly learned. Where the map errs, answers follow the labels, unless
        `follow_map` is set.
        """
        given, wrong = self._draw_context(key)
        if not given or not self.with_words:
            return "", None, labels, False
        scene = scene or self.tiles.read(self.tiles.tiles[key.index])
        shown = None if labels is None else labels.predicted_map  # drawn scenes have been mapped
        if self.mapper is not None and wrong:
            other = self.tiles.tiles[(key.index + key.epoch + 1) % len(self.tiles)]
            shown = self.mapper(self.tiles.read(other))
        elif self.mapper is not None and shown is None:
            shown = self.mapper(scene)
        if labels is not None and shown is not None:
            seen = SceneLabels.from_cover_map(shown)
            if self.follow_map or seen.agrees_with(labels):
                labels = replace(
                    labels,
                    land_cover=seen.land_cover,
                    cloud=seen.cloud,
                    haze=np.full_like(seen.cloud, labels.haze_share),
                    cover_map=shown,
                )
            labels = replace(labels, predicted_map=shown)
        context = write_scene_context(scene, shown, measure(scene))
        return context, scene, labels, shown is not None and not wrong

    def _augment(
        self,
        scene: Scene,
        labels: SceneLabels,
        layout: Layout,
        numbers: np.random.Generator,
    ) -> tuple[Scene, SceneLabels]:
        rows, columns, zoom = layout
        # Half of the scenes join tiles of one dominant land cover, as real neighbours often are.
        pool = self.by_dominant[labels.dominant] if numbers.random() < 0.5 else self.labelled
        drawn = numbers.choice(pool, size=rows * columns - 1)
        others = [self.tiles.tiles[int(index)] for index in drawn]
        pieces = [(scene, labels)]
        pieces += [(self.tiles.read(tile), tile.labels) for tile in others if tile.labels]
        if len({piece.reflectance.shape for piece, _ in pieces}) > 1:
            pieces, rows, columns = pieces[:1], 1, 1  # tiles of other sizes do not fit together
        numbers.shuffle(pieces)
        grid = [pieces[r * columns : (r + 1) * columns] for r in range(rows)]
        scene, labels = augment(*join_scenes(grid), numbers, zoom)
        year, month, day = numbers.integers((2016, 1, 1), (2026, 13, 29))
        date = datetime.date(int(year), int(month), int(day))
        return place_at_random(replace(scene, date=date), numbers), labels


def place_at_random(scene: Scene, rng: np.random.Generator) -> Scene:
    """Give most scenes a place and a pixel size, for questions about these."""
    if rng.random() >= PLACED:
        return scene
    longitude, latitude = (float(x) for x in rng.uniform((-180, -70), (180, 80)))
    metres = float(rng.choice((10, 10, 10, 20, 15)))
    return replace(scene, longitude=longitude, latitude=latitude, pixel_metres=metres)


def collate_samples(bridge: OlmoEarthVLMBridge, samples: Sequence[Sample]) -> Batch:
    """Join samples into a batch. Raises ValueError if they do not fit together."""
    scenes = [s.scene for s in samples if s.scene is not None]
    cached = [s.tokens.float() for s in samples if s.tokens is not None]
    prompts = [s.prompt for s in samples if s.prompt is not None]
    tokens = join_tokens(cached) if cached else None
    labels = [s.labels for s in samples if s.labels is not None]
    return Batch(
        bridge=bridge.collate(scenes, prompts, tokens) if prompts else None,
        scenes=scenes,
        labels=labels if len(labels) == len(samples) else None,
        sentences=[s.sentence for s in samples],
        names=[s.name for s in samples],
    )
