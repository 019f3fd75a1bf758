"""ChatEarthNet from its record: fetched in parallel, resumed, checked, and unpacked safely."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event

import requests
from requests.adapters import HTTPAdapter
from tenacity import (
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    wait_exponential,
)
from tqdm import tqdm
from urllib3.util import Retry

from earthvlm.storage.files import write_atomically

RECORD_URL = "https://zenodo.org/api/records/11003436"
# What a user names each archive by, and the folder it unpacks to.
PARTS = {
    "json": "json_files",
    "rgb": "s2_rgb_images",
    "b567": "s2_band_5_6_7_images",
    "b81112": "s2_band_8_11_12_images",
}
# Archives on their way, and notes of what was unpacked, are kept here below the data folder.
ASIDE = ".download"
CHUNK = 1 << 20
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces
CONNECTIONS_TRIED = 20
LONGEST_WAIT = 60  # seconds


@dataclass(frozen=True)
class Archive:
    """One file of the record. md5: as the record tells it."""

    name: str
    folder: str
    size: int
    md5: str
    url: str


def download_chatearthnet(
    data_dir: str | Path,
    parts: Sequence[str] = tuple(PARTS),
    captions: str | None = None,
    record_url: str = RECORD_URL,
) -> None:
    """Fetch and unpack parts of ChatEarthNet; what is there already is left alone.

    Interrupted at any moment, the next call goes on where this one stopped.
    parts: of `PARTS`. captions: "35" or "4v" unpacks only those, None both.

    Raises ValueError for a record without these parts, an archive that stays damaged or would
    write outside the folder, and OSError where the server or the disk fails; one sentence each.
    """
    data_dir = Path(data_dir)
    aside = data_dir / ASIDE
    aside.mkdir(parents=True, exist_ok=True)
    archives = [
        archive
        for archive in list_archives(record_url, parts)
        if _read_note(aside, archive) != archive.md5
    ]
    _check_disk(aside, archives)
    stop = Event()
    with ThreadPoolExecutor(max_workers=len(PARTS)) as threads:
        fetched = [(archive, threads.submit(_fetch, archive, aside, stop)) for archive in archives]
        try:
            for archive, path in fetched:
                unpack(path.result(), data_dir, archive.folder, captions)
                if captions is None or archive.folder != PARTS["json"]:
                    with write_atomically(aside / f"{archive.name}.md5") as note:
                        note.write_text(archive.md5)
                path.result().unlink()
        except BaseException:  # an interrupt, too, would else wait for hours of other archives
            stop.set()
            raise


def list_archives(record_url: str, parts: Sequence[str]) -> list[Archive]:
    """The record's files that hold these parts."""
    try:
        response = _session().get(record_url, timeout=TIMEOUT)
        response.raise_for_status()
        files = response.json()["files"]
    except (requests.RequestException, KeyError, ValueError) as error:
        raise ConnectionError(
            f"The record at {record_url} cannot be read ({type(error).__name__})."
        ) from error
    archives = []
    for part in parts:
        folder = PARTS[part]
        found = next((f for f in files if Path(f["key"]).stem == folder), None)
        if found is None:
            raise ValueError(f"The record at {record_url} has no archive of {folder}.")
        archives.append(
            Archive(
                found["key"],
                folder,
                int(found["size"]),
                found["checksum"].removeprefix("md5:"),
                found["links"]["self"],
            )
        )
    return archives


def _read_note(aside: Path, archive: Archive) -> str:
    note = aside / f"{archive.name}.md5"
    return note.read_text() if note.is_file() else ""


def _check_disk(aside: Path, archives: Sequence[Archive]) -> None:
    """Raise OSError where archives and what they hold, which is about as large, will not fit."""

    def missing(size: int, *files: Path) -> int:
        return max(size - sum(path.stat().st_size for path in files if path.is_file()), 0)

    needed = sum(
        missing(archive.size, aside / archive.name)
        + missing(archive.size, *(aside.parent / archive.folder).rglob("*"))
        for archive in archives
    )
    free = shutil.disk_usage(aside).free
    if needed > free:
        raise OSError(
            f"{aside.parent} needs {needed / 1e9:.1f} GB free, and {free / 1e9:.1f} GB are."
        )


def _session() -> requests.Session:
    """Connections that wait as long as the server asks when it is busy."""
    session = requests.Session()
    retries = Retry(
        CONNECTIONS_TRIED,
        status_forcelist=(429, 500, 502, 503, 504),
        backoff_factor=0.5,
        backoff_max=LONGEST_WAIT,
        respect_retry_after_header=True,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def _fetch(archive: Archive, aside: Path, stop: Event) -> Path:
    """The archive on disk, whole and checked; CancelledError once `stop` is set."""
    path = aside / archive.name
    receive = Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(CONNECTIONS_TRIED),
        wait=wait_exponential(multiplier=0.1, max=LONGEST_WAIT),
        sleep=sleep_using_event(stop),
        reraise=True,
    )
    for _ in range(2):  # a second time from the start, where the first arrived damaged
        try:
            receive(_receive, archive, path, stop)
        except requests.RequestException as error:
            raise ConnectionError(
                f"{archive.name} could not be fetched ({type(error).__name__}): try again later, "
                "and it goes on where it stopped."
            ) from error
        with path.open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() == archive.md5:
                return path
        path.unlink()
    raise ValueError(f"{archive.name} arrived twice with another md5 than its record's.")


def _may_pass(error: BaseException) -> bool:
    """Whether it is worth asking again: not where the server says that there is no such file."""
    refused = isinstance(error, requests.HTTPError) and error.response.status_code < 500
    return isinstance(error, requests.RequestException) and not (
        refused and error.response.status_code not in (408, 429)
    )


def _receive(archive: Archive, path: Path, stop: Event) -> None:
    """Append what is missing of an archive to its file."""
    have = path.stat().st_size if path.is_file() else 0
    if have >= archive.size:
        return
    asked = {"Range": f"bytes={have}-"} if have else {}
    with _session().get(archive.url, headers=asked, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        if have and response.status_code != requests.codes.partial_content:
            have = 0  # the server sends everything again
        with (
            path.open("ab" if have else "wb") as file,
            tqdm(
                total=archive.size,
                initial=have,
                desc=archive.name,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            for piece in response.iter_content(CHUNK):
                if stop.is_set():
                    raise CancelledError
                file.write(piece)
                bar.update(len(piece))
    if path.stat().st_size < archive.size:
        raise requests.ConnectionError(f"{archive.name} ended early")


def unpack(archive: Path, data_dir: Path, folder: str, captions: str | None = None) -> None:
    """Unpack an archive into a folder below the data folder, file by file, each whole or absent.

    Raises ValueError for an archive with a path that leaves the folder, before anything is written.
    """
    with zipfile.ZipFile(archive) as file:
        members = []
        for member in file.infolist():
            parts = PurePosixPath(member.filename).parts
            if member.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
                raise ValueError(
                    f"{archive.name} holds {member.filename!r}, which would be written elsewhere."
                )
            if not member.is_dir() and _is_wanted(parts[-1], captions):
                # Some archives hold their folder, some only what is in it.
                below = parts[parts.index(folder) + 1 :] if folder in parts else parts
                members.append((member, data_dir.joinpath(folder, *below)))
        for member, target in tqdm(members, desc=f"unpacking {archive.name}", unit="file"):
            if target.is_file() and target.stat().st_size == member.file_size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # Hundreds of thousands of small files, whose sizes are compared the next time.
            with (
                write_atomically(target, durable=False) as partial,
                file.open(member) as source,
                partial.open("wb") as sink,
            ):
                shutil.copyfileobj(source, sink, CHUNK)


def _is_wanted(name: str, captions: str | None) -> bool:
    return captions is None or "_caps_" not in name or f"_caps_{captions}_" in name
