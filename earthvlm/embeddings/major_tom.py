"""Cells of the Major TOM grid, by which embedding datasets of the ESA name places.

Francis and Czerkawski, "Major TOM: Expandable Datasets for Earth Observation", 2024
(https://github.com/ESA-PhiLab/Major-TOM, src/grid.py).
"""

from __future__ import annotations

import math

CELL_KM = 10.0
_EQUATOR_RADIUS_KM = 6378.137
_MAX_LATITUDE = 85.0  # of the published grid
_ROWS = math.ceil(math.pi * _EQUATOR_RADIUS_KM / CELL_KM)  # from pole to pole


def find_grid_cell(longitude: float | None, latitude: float | None) -> str | None:
    """Return the 10 km cell of a place in degrees, as "433U_984R"; None beyond 85 degrees.

    Rows count up (U) or down (D) from the equator, columns right (R) or left (L) from Greenwich. A
    cell is named after its lower left corner.
    """
    if longitude is None or latitude is None or abs(latitude) > _MAX_LATITUDE:
        return None
    height = 180 / _ROWS
    row = math.floor(latitude / height)
    circumference = 2 * math.pi * _EQUATOR_RADIUS_KM * math.cos(math.radians(row * height))
    columns = math.ceil(circumference / CELL_KM)
    width = 360 / columns
    # The leftmost column; of an even number, the rounding of the published grid decides on which
    # side of the antimeridian the last corner lies. Columns to the right reach over it.
    leftmost = -((columns - 1) // 2)
    if columns % 2 == 0 and columns // 2 * width - 180 >= 0:
        leftmost -= 1
    column = math.floor(longitude / width)
    if column < leftmost:
        column += columns
    elif column >= leftmost + columns:
        column -= columns
    return f"{abs(row)}{'U' if row >= 0 else 'D'}_{abs(column)}{'R' if column >= 0 else 'L'}"
