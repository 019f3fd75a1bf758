"""Results of an evaluation one by one, kept in files so that it can continue after a stop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from accelerate import PartialState

from earthvlm.storage.files import write_atomically

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Record:
    """What a bridge computed for one image; `index` is its place among those evaluated."""

    index: int


RecordT = TypeVar("RecordT", bound=Record)


class Records(Generic[RecordT]):
    """The records of one run, in a folder that outlives the process, or in memory.

    Each process appends to its own file, so that an evaluation can stop at any moment and continue.

    Args:
        folder: Where the files are; None keeps the records in memory.
        run: What the records depend on.
        state: The processes that take part.
        kind: The class of the records.

    Raises ValueError if the folder holds records of another run.
    """

    def __init__(
        self,
        folder: Path | None,
        run: dict[str, object],
        state: PartialState,
        kind: type[RecordT],
    ) -> None:
        self.folder, self.state, self.kind = folder, state, kind
        self._in_memory: list[RecordT] = []
        if folder is not None:
            _check_folder(folder, run)
            state.wait_for_everyone()  # all have checked before the folder changes
            if state.is_main_process:
                _prepare_folder(folder, run)
            state.wait_for_everyone()
        self.done = set(self._read())

    def batches(
        self, count: int, size: int, what: str, report: Callable[[str], None] | None
    ) -> Iterator[list[int]]:
        """Yield the indices below `count` that this process has yet to do, `size` at a time.

        what: the images' name in the reports on the progress, after each batch: "tiles".
        """
        own = range(self.state.process_index, count, self.state.num_processes)
        missing = [index for index in own if index not in self.done]
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            yield batch
            if report and self.state.is_main_process:
                report(f"{start + len(batch):,} of {len(missing):,} {what}")

    def add(self, records: Sequence[RecordT]) -> None:
        """Keep records of this process."""
        if self.folder is None:
            self._in_memory += records
            return
        with open(self.folder / f"{self.state.process_index}.jsonl", "a", encoding="utf-8") as file:
            # The line break comes first, to end a line that a killed process left incomplete.
            file.writelines("\n" + json.dumps(asdict(record)) for record in records)

    def collect(self) -> list[RecordT]:
        """Return the records of all processes in the images' order."""
        if self.folder is None:
            from accelerate.utils import gather_object

            records = gather_object(self._in_memory)
        else:
            self.state.wait_for_everyone()
            records = list(self._read().values())
        return sorted(records, key=lambda record: record.index)

    def remove(self) -> None:
        """Remove the folder, once the evaluation is complete."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> dict[int, RecordT]:
        records = {}
        for path in sorted(self.folder.glob("*.jsonl")) if self.folder else ():
            for line in path.read_text("utf-8").splitlines():
                try:
                    record = self.kind(**json.loads(line))
                except ValueError:  # a killed process left the line incomplete
                    continue
                records[record.index] = record
        return records


def _check_folder(folder: Path, run: dict[str, object]) -> None:
    try:
        earlier = json.loads((folder / RUN_FILE).read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # a killed process may have left incomplete JSON
        return
    if json.dumps(earlier) != json.dumps(run) and any(folder.glob("*.jsonl")):
        raise ValueError(
            f"{folder} holds an unfinished evaluation of another bridge, other tiles or other "
            "settings: choose another --output, or remove that folder."
        )


def _prepare_folder(folder: Path, run: dict[str, object]) -> None:
    """Make the folder, or empty it where it holds no complete description of this run."""
    path, text = folder / RUN_FILE, json.dumps(run)
    # Compared as text, because a killed process may have left incomplete JSON.
    if not path.is_file() or path.read_text("utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with write_atomically(path) as temporary:
            temporary.write_text(text, "utf-8")
