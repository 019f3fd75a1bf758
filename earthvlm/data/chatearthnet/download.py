"""Download ChatEarthNet from Zenodo: in parallel, resumed, verified and unpacked safely."""

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
# Names of the archives for users, and the folders they unpack to.
PARTS = {
    "json": "json_files",
    "rgb": "s2_rgb_images",
    "b567": "s2_band_5_6_7_images",
    "b81112": "s2_band_8_11_12_images",
}
# Partly downloaded archives, and the checksums of unpacked ones, are in this subfolder.
DOWNLOAD_FOLDER = ".download"
CHUNK = 1 << 20
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of data
CONNECTIONS_TRIED = 20
LONGEST_WAIT = 60  # seconds


@dataclass(frozen=True)
class Archive:
    """One file of the Zenodo record, with the checksum given there."""

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
    """Download and unpack parts of ChatEarthNet; skips those that are already unpacked.

    After an interruption, the next call resumes where this one stopped.
    parts: keys of `PARTS`. captions: "35" or "4v" unpacks only those captions, None both.

    Raises ValueError for a record without these parts, an archive that stays damaged or would
    write outside the folder, and OSError where the server or the disk fails; one sentence each.
    """
    data_dir = Path(data_dir)
    download_folder = data_dir / DOWNLOAD_FOLDER
    download_folder.mkdir(parents=True, exist_ok=True)
    archives = [
        archive
        for archive in list_archives(record_url, parts)
        if _read_checksum(download_folder, archive) != archive.md5
    ]
    _check_disk(download_folder, archives)
    stop = Event()
    with ThreadPoolExecutor(max_workers=len(PARTS)) as threads:
        fetched = [
            (archive, threads.submit(_fetch, archive, download_folder, stop))
            for archive in archives
        ]
        try:
            for archive, path in fetched:
                unpack(path.result(), data_dir, archive.folder, captions)
                if captions is None or archive.folder != PARTS["json"]:
                    with write_atomically(download_folder / f"{archive.name}.md5") as note:
                        note.write_text(archive.md5, "utf-8")
                path.result().unlink()
        except BaseException:  # an interrupt too must not wait for the other downloads
            stop.set()
            raise


def list_archives(record_url: str, parts: Sequence[str]) -> list[Archive]:
    """Return the record's archives of these parts."""
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


def _read_checksum(download_folder: Path, archive: Archive) -> str:
    path = download_folder / f"{archive.name}.md5"
    return path.read_text("utf-8") if path.is_file() else ""


def _check_disk(download_folder: Path, archives: Sequence[Archive]) -> None:
    """Raise OSError where archives and their content, about as large, do not fit on the disk."""

    def missing(size: int, *files: Path) -> int:
        return max(size - sum(path.stat().st_size for path in files if path.is_file()), 0)

    needed = sum(
        missing(archive.size, download_folder / archive.name)
        + missing(archive.size, *(download_folder.parent / archive.folder).rglob("*"))
        for archive in archives
    )
    free = shutil.disk_usage(download_folder).free
    if needed > free:
        raise OSError(
            f"{download_folder.parent} needs {needed / 1e9:.1f} GB of free space, but has "
            f"{free / 1e9:.1f} GB."
        )


def _session() -> requests.Session:
    """Return a session that retries, and waits as long as a busy server asks."""
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


def _fetch(archive: Archive, download_folder: Path, stop: Event) -> Path:
    """Download and verify an archive; raises CancelledError once `stop` is set."""
    path = download_folder / archive.name
    receive = Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(CONNECTIONS_TRIED),
        wait=wait_exponential(multiplier=0.1, max=LONGEST_WAIT),
        sleep=sleep_using_event(stop),
        reraise=True,
    )
    for _ in range(2):  # again from the start, if the first download is damaged
        try:
            receive(_receive, archive, path, stop)
        except requests.RequestException as error:
            raise ConnectionError(
                f"{archive.name} could not be downloaded ({type(error).__name__}): try again "
                "later, and the download resumes."
            ) from error
        with path.open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() == archive.md5:
                return path
        path.unlink()
    raise ValueError(
        f"{archive.name} was downloaded twice with another MD5 checksum than the record gives."
    )


def _may_pass(error: BaseException) -> bool:
    """Return whether a retry may succeed: not where the server refuses the file."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return status >= 500 or status in (408, 429)
    return isinstance(error, requests.RequestException)


def _receive(archive: Archive, path: Path, stop: Event) -> None:
    """Append the missing part of an archive to its file."""
    have = path.stat().st_size if path.is_file() else 0
    if have >= archive.size:
        return
    headers = {"Range": f"bytes={have}-"} if have else {}
    with _session().get(archive.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        if have and response.status_code != requests.codes.partial_content:
            have = 0  # the server ignores the range and sends the whole file
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
    """Unpack an archive into a folder below the data folder, one complete file after another.

    Raises ValueError before anything is written where a path in the archive leaves the folder.
    """
    with zipfile.ZipFile(archive) as file:
        members = []
        for member in file.infolist():
            parts = PurePosixPath(member.filename).parts
            if member.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
                raise ValueError(
                    f"{archive.name} holds {member.filename!r}, a path that leaves the data folder."
                )
            if not member.is_dir() and _is_wanted(parts[-1], captions):
                # Some archives contain their folder, others only its content.
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
