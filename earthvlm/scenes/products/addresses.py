"""Files behind web addresses, read by HTTP range requests: only what a part needs is fetched.

The command line and Python alone use this. The app opens no address, see docs/security.md.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

from earthvlm.scenes.rasters.raster_file import FIRST_BYTES, REMOTE_PREFIX, RasterFile, driver_of

CONNECT_SECONDS, READ_SECONDS = 10, 30
_MEDIA_TYPES = {"image/tiff": "GTiff", "image/jp2": "JP2OpenJPEG"}
MAX_JSON_BYTES = 8 * 2**20  # of a STAC item; usual ones have 20 KB


def is_address(text: object) -> bool:
    """Return whether this is a web address (http or https)."""
    return isinstance(text, str) and text.lower().startswith(("http://", "https://"))


def join_address(base: str, reference: str) -> str:
    """Return the address that a reference in a document at `base` means."""
    return urljoin(base, reference)


def file_name(address: str) -> str:
    """Return the last part of an address without its query, for messages."""
    return unquote(PurePosixPath(urlsplit(address).path).name) or urlsplit(address).netloc


def fetch(address: str, limit: int, first: int | None = None) -> bytes:
    """Fetch a small file, or its first bytes.

    Raises ConnectionError where it cannot be reached, FileNotFoundError where it is not there, and
    ValueError where it is larger than `limit` bytes.
    """
    import requests

    name = file_name(address)
    headers = {"Range": f"bytes=0-{first - 1}"} if first else {}
    try:
        with requests.get(
            address, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
        ) as reply:
            if reply.status_code in (404, 410):
                raise FileNotFoundError(
                    f"There is no '{name}' at {_host(address)}; check its address"
                )
            if reply.status_code >= 400:
                raise ConnectionError(
                    f"{_host(address)} refused '{name}' (status {reply.status_code}); "
                    "some servers want signed addresses or an account"
                )
            data = b""
            for piece in reply.iter_content(65_536):
                data += piece
                if first and len(data) >= first:
                    return data[:first]
                if len(data) > limit:
                    raise ValueError(f"'{name}' is larger than {limit // 2**20} MB")
            return data
    except requests.RequestException as error:
        raise ConnectionError(
            f"'{name}' could not be fetched from {_host(address)} ({type(error).__name__}); check "
            "its address, or try again later"
        ) from error


def fetch_start(address: str) -> bytes:
    """Fetch the first bytes of a file, which tell what it is. Raises what `fetch` raises."""
    return fetch(address, FIRST_BYTES, first=FIRST_BYTES)


def is_json(start: bytes) -> bool:
    """Return whether a file starts as a JSON object does; items of a STAC API have no suffix."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def remote_raster(address: str, media_type: str = "", start: bytes | None = None) -> RasterFile:
    """Return a raster behind an address.

    media_type: of the file, where it is known; start: its first bytes, which else are fetched.
    Raises what `fetch` raises, and ValueError for what is no raster.
    """
    name = file_name(address)
    known = (name for kind, name in _MEDIA_TYPES.items() if media_type.lower().startswith(kind))
    driver = next(known, None)
    if driver is None:
        driver = driver_of(fetch_start(address) if start is None else start)
    if driver is None:
        raise ValueError(f"'{name}' is neither a GeoTIFF nor JPEG 2000")
    return RasterFile(name, f"{REMOTE_PREFIX}{address}", driver)


def _host(address: str) -> str:
    return urlsplit(address).netloc.rpartition("@")[2]
