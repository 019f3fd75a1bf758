"""Limits that the owner of a server sets by the environment."""

from __future__ import annotations

import math
import os

ADDRESS_FACTOR = "EARTHVLM_ADDRESS_FACTOR"
UPLOAD_MB, DEFAULT_UPLOAD_MB = "EARTHVLM_UPLOAD_MB", 64


def read_address_factor() -> float:
    """Return how many times the bounds of one address hold, as for a class behind one address.

    Raises:
        ValueError: the environment does not give a number from 1.
    """
    text = os.environ.get(ADDRESS_FACTOR) or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 1 <= factor < math.inf:
        raise ValueError(f"{ADDRESS_FACTOR} is {text!r}; give a number from 1 up, such as 5")
    return factor


def read_upload_mb() -> int:
    """Return how large an uploaded file may be, in MiB; more than 64 for whole products.

    Raises:
        ValueError: the environment does not give a whole number from 64.
    """
    text = os.environ.get(UPLOAD_MB) or str(DEFAULT_UPLOAD_MB)
    if not (text.isascii() and text.isdigit()) or int(text) < DEFAULT_UPLOAD_MB:
        raise ValueError(
            f"{UPLOAD_MB} is {text!r}; give a whole number from {DEFAULT_UPLOAD_MB} up"
        )
    return int(text)


def read_upload_factor() -> float:
    """Return how many times the bounds on uploads hold, so that a file of that size fits."""
    return read_upload_mb() / DEFAULT_UPLOAD_MB
