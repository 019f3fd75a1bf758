"""How many times the bounds of one address hold, as for a class behind one address."""

from __future__ import annotations

import math
import os

ADDRESS_FACTOR = "EARTHVLM_ADDRESS_FACTOR"


def read_address_factor() -> float:
    """Return the number, from 1, that the environment gives.

    Raises:
        ValueError: It is not such a number.
    """
    text = os.environ.get(ADDRESS_FACTOR) or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 1 <= factor < math.inf:
        raise ValueError(f"{ADDRESS_FACTOR} is {text!r}; give a number from 1 up, such as 5")
    return factor
