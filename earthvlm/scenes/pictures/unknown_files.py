"""What a file is that is no image which is read here, and what to do with it."""

from __future__ import annotations

from pathlib import Path

_CONVERT = "convert it with its bands' names: gdal_translate IN OUT.tif"
_UNPACK = "unpack it first"
_NOT_IN_APP = "give a GeoTIFF here; Scene.open and earthvlm describe take it"
# The first bytes of files that people have in place of an image: what it is, and what to do.
_KNOWN_STARTS = {
    b"EHFA_HEADER_TAG": ("an ERDAS Imagine raster", _CONVERT),
    b"\x0e\x03\x13\x01": ("an HDF4 file", _CONVERT),
    b"NITF": ("a NITF raster", _CONVERT),
    b"<VRTDataset": ("a virtual raster, which refers to others", _CONVERT),
    b"ENVI": ("the header of an ENVI raster", "convert that one: gdal_translate IN OUT.tif"),
    b"\x93NUMPY": ("a NumPy array", "load it in Python, and give it to Scene.from_array"),
    b"\x1f\x8b": ("compressed by gzip", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"Rar!": ("a RAR archive", _UNPACK),
    b"PK\x03\x04": ("a zip archive", _NOT_IN_APP),
    b"\x89HDF": ("a netCDF or HDF5 file", _NOT_IN_APP),
    b"CDF": ("a netCDF file", _NOT_IN_APP),
    b"%PDF": ("a PDF document", "give the image itself"),
    b"version https://git-lfs": ("a pointer of Git LFS to the file", "fetch it: git lfs pull"),
    b"<!doctype html": ("a web page, as of a login or an error", "download the file again"),
    b"<html": ("a web page, as of a login or an error", "download the file again"),
}
_TAR_AT, _TAR = 257, b"ustar"


def explain_unknown_file(path: Path) -> str | None:
    """Return what a file is and what to do with it, "a PDF document; give ..."; None if unknown."""
    with path.open("rb") as file:
        start = file.read(_TAR_AT + len(_TAR))
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for known, (what, advice) in _KNOWN_STARTS.items():
        if start.startswith(known) or text.startswith(known.lower()):
            return f"{what}; {advice}"
    if start[_TAR_AT:] == _TAR:
        return f"a tar archive; {_UNPACK}"
    header = path.with_suffix(".hdr")
    if header != path and header.is_file() and header.read_bytes()[:4] == b"ENVI":
        return f"an ENVI raster; {_CONVERT}"
    return None
