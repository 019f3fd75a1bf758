"""How good a bridge is on tiles, beside the same bridge given another's scene, and none.

Each tile is asked every task's question. Given another tile's scene, a bridge says what it said of
that tile, so those answers are scored a second time, exchanged; given no scene, it says one thing
of all tiles. What is above both is what seeing brings.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from accelerate import PartialState

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import CaptionedScenes, Tile, are_labelled
from earthvlm.data.labels import QUARTERS
from earthvlm.data.question_answering import describe
from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.metrics.captioning import score_captions
from earthvlm.metrics.questions import (
    Score,
    Task,
    score_dominant,
    score_mentions,
    score_mentions_precision,
    score_mentions_recall,
    score_quarter,
    score_water,
)
from earthvlm.metrics.results import MetricResult, mean_result, score_losses
from earthvlm.metrics.retrieval import pair_ranks, score_retrieval
from earthvlm.models.text_encoder import embed_sentences

DESCRIPTION = Task("description", DEFAULT_PROMPT, score_mentions, 112)
# What the labels of a tile answer.
QUESTIONS = (
    Task("dominant land cover", "Which land cover dominates?", score_dominant, 24),
    Task("is there water", "Is there water?", score_water, 24),
    Task("what fills a quarter", "What fills the {place}?", score_quarter, 40),
)
MENTIONS = (
    ("description, land-cover precision", score_mentions_precision),
    ("description, land-cover recall", score_mentions_recall),
    ("description, land-cover F1", score_mentions),
)
RUN_FILE = "run.json"


@dataclass(frozen=True)
class Record:
    """What a bridge made of one tile.

    index: of the tile. answers: by task. losses: of its description, summed over `tokens`, by what
    the bridge was given. embedding: its scene's, `[384]`.
    """

    index: int
    answers: dict[str, str]
    losses: dict[str, float]
    tokens: int
    embedding: list[float]


class Records:
    """What was made of tiles so far, in a folder that outlives the process; or kept in memory.

    Each process appends to a file of its own, so that an evaluation broken off anywhere goes on.
    run: what the records depend on; those of another run are dropped.
    """

    def __init__(self, folder: Path | None, run: dict[str, object], state: PartialState) -> None:
        self.folder, self.state, self.new = folder, state, []
        if folder is not None:
            if state.is_main_process:
                self._open(folder, run)
            state.wait_for_everyone()
        self.done = set(self._stored())

    @staticmethod
    def _open(folder: Path, run: dict[str, object]) -> None:
        path = folder / RUN_FILE
        text = json.dumps(run)
        # Compared as text: one that was half written when it was killed is no JSON.
        if not path.is_file() or path.read_text() != text:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            path.write_text(text)

    def add(self, records: Sequence[Record]) -> None:
        """Keep what this process measured, on disk where there is a folder to resume from."""
        if self.folder is None:
            self.new += records
            return
        with open(self.folder / f"{self.state.process_index}.jsonl", "a") as file:
            # The line break comes first: what a process that was killed left half written ends.
            file.writelines("\n" + json.dumps(asdict(record)) for record in records)

    def collect(self) -> list[Record]:
        """All of them, of every process, in the tiles' order."""
        if self.folder is None:
            from accelerate.utils import gather_object

            records = gather_object(self.new)
        else:
            self.state.wait_for_everyone()
            records = list(self._stored().values())
        return sorted(records, key=lambda record: record.index)

    def _stored(self) -> dict[int, Record]:
        records = {}
        for path in sorted(self.folder.glob("*.jsonl")) if self.folder else ():
            for line in path.read_text().splitlines():
                try:
                    record = Record(**json.loads(line))
                except ValueError:  # what a process was writing when it was killed
                    continue
                records[record.index] = record
        return records

    def remove(self) -> None:
        """Remove the folder: the evaluation is complete."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def evaluate(
    bridge: OlmoEarthVLMBridge,
    tiles: CaptionedScenes,
    batch_size: int = 24,
    seed: int = 0,
    limit: int | None = None,
    folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[list[MetricResult], list[dict]]:
    """Ask every question of every tile, describe it, and search the tiles by sentences.

    Run by several processes, each takes its share; the figures are the same, and all get them.
    limit: so many tiles at most, spread over the split.
    folder: where what is done so far is kept until the figures are there.

    Returns the figures, and each tile's answers beside what is true for people to read. Tiles
    without labels are described and searched for, not asked about; the land cover that a
    description names is then compared with what their captions name.
    """
    count = min(limit or len(tiles), len(tiles))
    chosen = [tiles.tiles[int(i)] for i in np.linspace(0, len(tiles) - 1, count)]
    others = _exchange(count, seed)
    state = PartialState(cpu=bridge.device.type == "cpu")
    asked = [[tile.name, *references(tile)] for tile in chosen]
    run = {"bridge": bridge.revision, "tiles": asked, "seed": seed}
    records = Records(folder, run, state)
    own = range(state.process_index, count, state.num_processes)
    missing = [index for index in own if index not in records.done]
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        records.add(list(_look(bridge, tiles, chosen, batch, others)))
        if report and state.is_main_process:
            report(f"{start + len(batch):,} of {len(missing):,} tiles")
    found = records.collect()
    figures = _score(bridge, chosen, found, others, seed)
    if state.is_main_process:
        records.remove()
    rows = [
        {"image": tile.name, "reference": references(tile)[0], **record.answers}
        for tile, record in zip(chosen, found, strict=True)
    ]
    return figures, rows


def references(tile: Tile) -> list[str]:
    """What a description of a tile should say: its labels as sentences, or its captions."""
    return [describe(tile.labels)] if tile.labels else list(tile.captions)


def _questions(tiles: Sequence[Tile]) -> tuple[Task, ...]:
    return (*(QUESTIONS if are_labelled(tiles) else ()), DESCRIPTION)


def _place(index: int) -> str:
    return QUARTERS[index % len(QUARTERS)]


def _look(
    bridge: OlmoEarthVLMBridge,
    tiles: CaptionedScenes,
    chosen: Sequence[Tile],
    batch: Sequence[int],
    others: np.ndarray,
) -> Iterator[Record]:
    scenes = [tiles.read(chosen[i]) for i in batch]
    answers = {}
    for task in _questions(chosen):
        questions = [task.question.format(place=_place(i)) for i in batch]
        answers[task.name] = bridge.generate(scenes, questions, task.max_length)
    pairs = [
        [
            {"role": "user", "content": DESCRIPTION.question},
            {"role": "assistant", "content": references(chosen[i])[0]},
        ]
        for i in batch
    ]
    given = {
        "scene": scenes,
        "shuffled": [tiles.read(chosen[others[i]]) for i in batch],
        "no_image": None,
    }
    losses = {kind: bridge.answer_losses(shown, pairs) for kind, shown in given.items()}
    embeddings = bridge.embed(scenes)
    for row, index in enumerate(batch):
        yield Record(
            index,
            {task: texts[row] for task, texts in answers.items()},
            {kind: sums[row] for kind, (sums, _) in losses.items()},
            losses["scene"][1][row],
            [round(float(x), 7) for x in embeddings[row]],
        )


def _score(
    bridge: OlmoEarthVLMBridge,
    tiles: Sequence[Tile],
    records: Sequence[Record],
    others: np.ndarray,
    seed: int,
) -> list[MetricResult]:
    figures = []
    reference = [references(tile) for tile in tiles]
    tasks = _questions(tiles)
    for task in tasks:
        said = _said(bridge, task, records, others)
        if task is not DESCRIPTION:
            figures.append(_mean(task.name, task.score, said, tiles, seed))
            continue
        figures += [_mean(name, score, said, tiles, seed) for name, score in MENTIONS]
        figures += _score_captions(said, reference, seed)
    losses = {
        k: np.array([r.losses[k] for r in records]) for k in ("scene", "shuffled", "no_image")
    }
    figures += score_losses(losses, np.array([r.tokens for r in records]), seed)
    sentences = embed_sentences([sentences[0] for sentences in reference])
    scenes = np.array([record.embedding for record in records], np.float32)
    return figures + score_retrieval(pair_ranks(sentences, scenes), seed)


def _said(
    bridge: OlmoEarthVLMBridge, task: Task, records: Sequence[Record], others: np.ndarray
) -> dict[str, list[str]]:
    """A task's answers of all tiles by what the bridge was given."""
    own = [record.answers[task.name] for record in records]
    questions = [task.question.format(place=_place(i)) for i in range(len(records))]
    once = list(dict.fromkeys(questions))
    unseeing = dict(zip(once, bridge.generate(None, once, task.max_length), strict=True))
    return {
        "scene": own,
        "shuffled": [own[other] for other in others],
        "no_image": [unseeing[question] for question in questions],
    }


def _mean(
    name: str, score: Score, said: dict[str, list[str]], tiles: Sequence[Tile], seed: int
) -> MetricResult:
    scores = {
        kind: np.array(
            [
                score(answer, tile.labels or tile.captions, _place(i))
                for i, (answer, tile) in enumerate(zip(answers, tiles, strict=True))
            ]
        )
        for kind, answers in said.items()
    }
    return mean_result(name, scores["scene"], scores["shuffled"], scores["no_image"], seed)


def _score_captions(
    captions: dict[str, list[str]], reference: list[list[str]], seed: int
) -> list[MetricResult]:
    try:
        return score_captions(captions, reference, seed)
    except ModuleNotFoundError:  # the extra `evaluation` is not installed; the command says so
        return []


def _exchange(count: int, seed: int) -> np.ndarray:
    """For each tile another one, which was asked about the same quarter where there is one."""
    rng = np.random.default_rng(seed)
    others = np.arange(count)
    for turn in range(len(QUARTERS)):
        group = rng.permutation(np.arange(turn, count, len(QUARTERS)))
        others[group] = np.roll(group, 1) if len(group) > 1 else (group + 1) % count
    return others
