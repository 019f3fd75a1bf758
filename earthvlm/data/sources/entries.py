"""The entries of metadata: an image with texts, questions and answers, conversations or labels."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from earthvlm.data.captioned_scenes import Tile, is_unicode
from earthvlm.data.labels import SceneLabels
from earthvlm.data.questions.templates import DESCRIBE
from earthvlm.data.tile_dataset import list_entries
from earthvlm.models.language.chat_templates import Message

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model"), "assistant"),
    "system": "system",
}
# Marks of the image in a text, whose place the prompt format decides here.
IMAGE_MARK = re.compile(r"\s*<image>\s*")
# A request for a description and nothing else: its answer is a caption.
_DESCRIBE = re.compile(
    r"(please |can you |could you )*(describe|caption) (this|the) "
    r"((satellite|remote sensing) )?(image|picture|scene|photo|tile)( in detail)?[.?]?",
    re.IGNORECASE,
)
TEXT_COLUMNS = ("text", "caption", "captions")
CONVERSATION_COLUMNS = ("conversations", "messages")


@dataclass(frozen=True)
class Place:
    """Where and when an image was taken, as far as its entry says so; degrees."""

    longitude: float | None = None
    latitude: float | None = None
    date: datetime.date | None = None


@dataclass
class Entries:
    """The entries of one source as tiles by split, in the order in which they came.

    faults: entries that are left out, by file and reason.
    """

    tiles: dict[str, dict[str, Tile]] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    faults: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(
        self, file: str, number: int, values: object, image: str | None, split: str, shard: int = 0
    ) -> None:
        """Add an entry; those of one image and split become one tile.

        Args:
            file: where the entry is, for messages.
            number: of the entry, counted from 1.
            values: the columns.
            image: its name in the source, or None where the entry names none.
            split: the one to take where the entry names none.
            shard: see `Tile`.

        Raises:
            ValueError: names file and entry, for values of another form.
        """
        try:
            if not isinstance(values, Mapping):
                raise ValueError("is no object with columns")
            if image is None:
                self.leave_out(file, "without an image", number)
                return
            tile = replace(_read_tile(values, image), shard=shard)
            split = _read_split(values.get("split"), split)
            place = _read_place(values)
        except ValueError as error:
            raise ValueError(f"{file}: entry {number} {error}.") from None
        if not (tile.captions or tile.conversations or tile.labels):
            self.leave_out(file, "without text", number, image)
            return
        tiles = self.tiles.setdefault(split, {})
        if image in tiles:
            known = tiles[image]
            tile = replace(
                known,
                captions=(*known.captions, *tile.captions),
                conversations=(*known.conversations, *tile.conversations),
                labels=tile.labels or known.labels,
            )
        tiles[image] = tile
        if place != Place():
            self.places[image] = place

    def leave_out(self, file: str, reason: str, number: int, image: str = "") -> None:
        """Note an entry that cannot be used."""
        named = f"entry {number}" + (f", {image}" if image else "")
        self.faults.setdefault((file, reason), []).append(named)

    def left_out(self) -> list[str]:
        """Return one sentence for each kind of fault, with the first entries."""
        return [list_entries(*key, entries) for key, entries in self.faults.items()]


def check_name(name: object) -> str:
    """Return a path inside a source. Raises ValueError for another value."""
    if not isinstance(name, str) or not name or not is_unicode(name):
        raise ValueError(f"names the image {str(name)[:80]!a}, which is no path of a file")
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"names the image {name[:80]!r}, which is outside the folder")
    return str(path)


def split_of_name(name: str) -> str | None:
    """Return the split that a file's path names, as in "data/train-00000.parquet"."""
    for part in reversed(PurePosixPath(name).parts):
        for word in re.split(r"[^a-z]+", PurePosixPath(part).stem.lower()):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return None


def _read_split(value: object, default: str) -> str:
    if value is None or value == "":
        return default
    if not isinstance(value, str):
        raise ValueError(f"has the split {value!r}, which is no text")
    return SPLIT_NAMES.get(value.lower(), value)


def _read_tile(values: Mapping[str, Any], image: str) -> Tile:
    captions = [
        text for name in TEXT_COLUMNS for text in _read_texts(values.get(name), f"a {name}")
    ]
    conversations: list[tuple[Message, ...]] = [
        (_message("user", question), _message("assistant", answer))
        for question, answer in _read_pairs(values.get("question"), values.get("answer"))
    ]
    for name in CONVERSATION_COLUMNS:
        if values.get(name):
            conversation = read_messages(values[name])
            if conversation:
                conversations.append(conversation)
    talks = []
    for conversation in conversations:
        if len(conversation) == 2 and asks_for_description(conversation[0]["content"]):
            captions.append(conversation[1]["content"])
        else:
            talks.append(conversation)
    return Tile(image, tuple(captions), _read_labels(values.get("labels")), tuple(talks))


def asks_for_description(question: str) -> bool:
    """Return whether a question asks for a description and nothing else."""
    return question in DESCRIBE or _DESCRIBE.fullmatch(question) is not None


def _read_texts(value: object, what: str) -> list[str]:
    """Return the texts that are not blank."""
    given = value if isinstance(value, list) else [value]
    texts = []
    for each in given:
        if each is not None and not isinstance(each, str):
            raise ValueError(f"has {what} that is neither text nor a list of texts")
        if each and each.strip():
            texts.append(_check_text(each.strip()))
    return texts


def _read_pairs(question: object, answer: object) -> Iterable[tuple[str, str]]:
    questions = question if isinstance(question, list) else [question]
    answers = answer if isinstance(answer, list) else [answer]
    if len(questions) != len(answers):
        raise ValueError(f"has {len(questions)} questions and {len(answers)} answers")
    for one, other in zip(questions, answers, strict=True):
        if isinstance(other, bool):
            other = "yes" if other else "no"
        elif isinstance(other, int | float):
            other = str(other)
        asked, answered = _read_texts(one, "a question"), _read_texts(other, "an answer")
        if asked and answered:
            yield asked[0], answered[0]


def read_messages(value: object) -> tuple[Message, ...]:
    """Read a conversation of LLaVA ("from", "value") or OpenAI ("role", "content").

    Marks of the image are removed, and so are system messages and a last question without an
    answer. Raises ValueError where the roles do not alternate or a message has another form.
    """
    value = json.loads(value) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise ValueError("has a conversation that is no list of messages")
    messages: list[Message] = []
    for each in value:
        role, text = _read_message(each)
        if role == "system":
            continue
        if role != ("user", "assistant")[len(messages) % 2]:
            raise ValueError("has a conversation whose roles do not alternate, user first")
        messages.append(_message(role, text))
    if len(messages) % 2:
        messages.pop()
    if not all(message["content"] for message in messages):
        raise ValueError("has a conversation with an empty message")
    return tuple(messages)


def _read_message(value: object) -> tuple[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("has a message that is no object")
    role = value.get("from", value.get("role"))
    content = value.get("value", value.get("content"))
    if isinstance(content, list):  # parts, of which images have none
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = " ".join(part for part in parts if part)
    if not isinstance(role, str) or role.lower() not in ROLES or not isinstance(content, str):
        raise ValueError(
            f"has a message of {str(role)[:40]!r}: messages have a text and are from human or gpt, "
            "or of the role user or assistant"
        )
    return ROLES[role.lower()], _check_text(IMAGE_MARK.sub(" ", content).strip())


def _message(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def _check_text(text: str) -> str:
    if not is_unicode(text):
        raise ValueError("has a text with characters that are not in UTF-8")
    return text


def _read_labels(value: object) -> SceneLabels | None:
    if not value:
        return None
    try:
        entry: Any = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"has labels that are no JSON: {error}") from error
    try:
        return SceneLabels.from_entry(entry) if entry else None
    except ValueError as error:
        raise ValueError(f"has labels that {error}") from error


def _read_place(values: Mapping[str, Any]) -> Place:
    longitude, latitude, date = (values.get(name) for name in ("longitude", "latitude", "date"))
    try:
        place = Place(
            None if longitude in (None, "") else float(longitude),
            None if latitude in (None, "") else float(latitude),
            None if date in (None, "") else datetime.date.fromisoformat(str(date)[:10]),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"has a place or date that cannot be read: {error}") from None
    if not (-180 <= (place.longitude or 0) <= 180 and -90 <= (place.latitude or 0) <= 90):
        raise ValueError(f"is at {longitude}, {latitude}, which is no longitude and latitude")
    return place
