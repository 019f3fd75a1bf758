"""Test sets of questions with candidate answers: public ones as their authors publish them.

No set comes with this package. Each function reads the files from a folder where they lie as they
were unpacked, and names the file that is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from earthvlm.data.captioned_scenes import CaptionedScenes
from earthvlm.data.labels import SCENE_NAMES
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.scenes.scene import Scene

YES_OR_NO = ("yes", "no")
MAX_CANDIDATES = 20  # of a dataset's own question
PICTURES = (".tif", ".jpg", ".png")


@dataclass(frozen=True)
class Item:
    """A question about an image, whose answer is one of its candidates.

    image: its path, or its name in a dataset. group: what accuracies are averaged by.
    """

    image: str
    question: str
    candidates: tuple[str, ...]
    answer: str
    group: str


@dataclass(frozen=True)
class PublicSet:
    """The items of a test set.

    classes: where each image is of one class, a sentence for each, to compare with embeddings.
    notes: sentences on what was left out. open: opens an image; raises ValueError or OSError.
    totals: groups whose questions others report together, by the name of that figure.
    """

    items: list[Item]
    classes: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    open: Callable[[str], Scene] = Scene.open
    totals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def collect_questions(dataset: CaptionedScenes) -> PublicSet:
    """Collect the questions of a dataset whose wording has a few answers over all tiles.

    Those are each one's candidates. Only the first turn of a conversation is asked.
    """
    pairs = [
        (tile, talk[0]["content"], talk[1]["content"])
        for tile in dataset.tiles
        for talk in tile.conversations
    ]
    answers: dict[str, dict[str, None]] = {}
    for _, question, answer in pairs:
        answers.setdefault(question, {})[answer] = None
    items = [
        Item(tile.name, question, tuple(answers[question]), answer, "own questions")
        for tile, question, answer in pairs
        if 2 <= len(answers[question]) <= MAX_CANDIDATES
    ]
    others = len(pairs) - len(items)
    left_out = f"Without a few fixed answers, so left out: {describe_count(others, 'question')}."
    tiles = {tile.name: tile for tile in dataset.tiles}
    notes = (left_out,) if others else ()
    return PublicSet(items, None, notes, lambda name: dataset.read(tiles[name]))


# RSVQA-LR (Lobry et al. 2020, doi:10.1109/TGRS.2020.2988782), 256 x 256 pixels of red, green and
# blue. Counts are answered in the ranges of the authors' code (`VQA_model/VocabEncoder.py`).
RSVQA_CANDIDATES: dict[str, tuple[str, ...]] = {
    "presence": YES_OR_NO,
    "comp": YES_OR_NO,
    "rural_urban": ("rural", "urban"),
    "count": (
        *("0", "between 0 and 10", "between 10 and 100"),
        *("between 100 and 1000", "more than 1000"),
    ),
}
RANGES = ((0, 0), (10, 1), (100, 2), (1000, 3))  # upper limit and place in the candidates
# GeoChat (arXiv 2311.15826) and those it compares itself with leave the counts out.
RSVQA_TOTALS = {"without counts": ("presence", "comp", "rural_urban")}


def read_rsvqa(folder: Path, split: str = "test") -> PublicSet:
    """Read RSVQA-LR: `LR_split_test_*.json` and `Images_LR/`, as on Zenodo (record 6344334).

    Raises FileNotFoundError for a missing file, ValueError for an entry of another form.
    """
    images, questions, answers = (
        _read_list(folder / f"LR_split_{split}_{kind}.json", kind)
        for kind in ("images", "questions", "answers")
    )
    active = {entry["id"] for entry in images if entry.get("active")}
    answered = {entry["question_id"]: entry["answer"] for entry in answers if entry.get("active")}
    items = []
    for entry in questions:
        if not entry.get("active") or entry["img_id"] not in active:
            continue
        kind, answer = entry["type"], answered.get(entry["id"])
        if kind not in RSVQA_CANDIDATES or answer is None:
            raise ValueError(f"{folder}: question {entry['id']} has no known type and answer.")
        answer = _range_of(answer) if kind == "count" else answer.lower()
        image = folder / "Images_LR" / f"{entry['img_id']}.tif"
        items.append(Item(str(image), entry["question"], RSVQA_CANDIDATES[kind], answer, kind))
    return PublicSet(items, totals=RSVQA_TOTALS)


def _read_list(path: Path, kind: str) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: unpack RSVQA-LR there.")
    try:
        return json.loads(path.read_bytes())[kind]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has no list {kind!r}: {error}.") from error


def _range_of(answer: str) -> str:
    number = int(answer)
    place = next((place for limit, place in RANGES if number <= limit), len(RANGES))
    return RSVQA_CANDIDATES["count"][place]


def read_eurosat(folder: Path, split: str = "test") -> PublicSet:
    """Read EuroSAT (Helber et al. 2019): a folder a class, 13-band `.tif` or true-colour `.jpg`.

    Where the folder has `eurosat-test.txt`, as torchgeo's splits have, only its images are taken;
    without, all, and a note says so. Raises FileNotFoundError without class folders.
    """
    classes = {path.name: path for path in sorted(folder.rglob("*")) if path.name in SCENE_NAMES}
    if len(classes) != len(SCENE_NAMES):
        missing = ", ".join(sorted(set(SCENE_NAMES) - set(classes)))
        raise FileNotFoundError(f"{folder} lacks EuroSAT's folders {missing}.")
    listed = folder / f"eurosat-{split}.txt"
    chosen = (
        {Path(line).stem for line in listed.read_text("utf-8").split()}
        if listed.is_file()
        else None
    )
    notes = () if chosen else (f"There is no {listed.name}, so all images are taken.",)
    names = {
        kind: name.removeprefix("a ").removeprefix("an ") for kind, name in SCENE_NAMES.items()
    }
    items = [
        Item(str(path), "What kind of scene is this?", tuple(names.values()), names[kind], "class")
        for kind, place in classes.items()
        for path in sorted(place.iterdir())
        if path.suffix.lower() in PICTURES and (chosen is None or path.stem in chosen)
    ]
    return PublicSet(items, {names[kind]: text for kind, text in SCENE_NAMES.items()}, notes)


BIGEARTHNET_TEXTS = "BigEarthNet.txt.parquet"
BIGEARTHNET_IMAGES = "BigEarthNet-S2"
# Before an option of a multiple-choice question: "a) forest, b) sea", also "(B) sea" or "C. river".
_OPTION = re.compile(r"(?:^|(?<=[\s,;(]))([A-Ha-h])(?:\)|[.:](?=\s))\s*")


def read_bigearthnet_txt(folder: Path, split: str = "bench") -> PublicSet:
    """Read BigEarthNet.txt (Herzog et al. 2026, arXiv 2603.29630) and images of BigEarthNet v2.

    The folder holds `BigEarthNet.txt.parquet` and `BigEarthNet-S2/TILE/PATCH/`. Binary and
    multiple-choice questions are taken; captions, bounding boxes, and questions whose options
    cannot be told from their text are counted in a note.

    Raises FileNotFoundError for a missing file or split, ValueError for missing columns.
    """
    path = folder / BIGEARTHNET_TEXTS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: fetch it from the Hub's BigEarthNet.txt.")
    columns = ["patch_id", "input", "output", "type", "category", "split"]
    try:
        table = pq.read_table(path, columns=columns)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} lacks one of {', '.join(columns)}: {error}") from error
    splits = table["split"].unique().to_pylist()
    named = next((name for name in splits if str(name).lower().startswith(split)), None)
    if named is None:
        raise FileNotFoundError(f"{path} has no split {split!r}: it has {', '.join(splits)}.")
    rows = [row for row in table.to_pylist() if row["split"] == named]
    items, others = [], 0
    for row in rows:
        candidates = _read_candidates(row["type"], row["input"], row["output"])
        if not candidates:
            others += 1
            continue
        tile = row["patch_id"].rsplit("_", 2)[0]
        image = folder / BIGEARTHNET_IMAGES / tile / row["patch_id"]
        answer = next(each for each in candidates if _same(each, row["output"]))
        group = f"{row['type']}, {row['category']}"
        items.append(Item(str(image), row["input"], candidates, answer, group))
    left_out = f"Left out as captions, boxes or the like: {describe_count(others, 'item')}."
    notes = (left_out,) if others else ()
    groups = list(dict.fromkeys(item.group for item in items))
    totals = {
        kind: tuple(group for group in groups if group.startswith(f"{kind}, "))
        for kind in ("binary", "mcq")
    }
    return PublicSet(items, None, notes, totals=totals)


def _read_candidates(kind: str, question: str, answer: str) -> tuple[str, ...]:
    """Return the candidates of a question, or () where they do not hold the answer."""
    if kind == "binary":
        candidates: Sequence[str] = ("Yes", "No")
    elif kind == "mcq":
        options = _read_options(question)
        candidates = list(options if _same_any(list(options), answer) else options.values())
    else:
        return ()
    return tuple(candidates) if _same_any(candidates, answer) else ()


def _read_options(question: str) -> dict[str, str]:
    """Return the options of a question by their letters, which run from A or a on without a gap."""
    marks: list[re.Match[str]] = []
    for mark in _OPTION.finditer(question):
        if mark[1].lower() == "abcdefgh"[len(marks) : len(marks) + 1]:
            marks.append(mark)
    ends = [*(mark.start() for mark in marks[1:]), len(question)]
    return {
        mark[1]: question[mark.end() : end].strip(" \n,;(")
        for mark, end in zip(marks, ends[: len(marks)], strict=True)
    }


def _same(one: str, other: str) -> bool:
    return one.strip(" .").lower() == other.strip(" .").lower()


def _same_any(candidates: Sequence[str], answer: str) -> bool:
    return any(_same(each, answer) for each in candidates)


# By the name that `earthvlm evaluate --dataset` takes: how a set is read, and its test split.
PUBLIC_SETS: dict[str, tuple[Callable[[Path, str], PublicSet], str]] = {
    "rsvqa-lr": (read_rsvqa, "test"),
    "eurosat": (read_eurosat, "test"),
    "bigearthnet.txt": (read_bigearthnet_txt, "bench"),
}
