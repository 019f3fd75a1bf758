"""PrincipalParts: vectors by their few largest components, with a proven bound on the rest.

A trained bridge places scenes in few of the directions there are, so that a first pass over those
tells which vectors can be among the nearest. With D the directions, orthonormal, y = x - mean and
r = y - D'Dy, q.y = Dq.Dy + q.r, and the inequality of Cauchy and Schwarz gives
|q.r| <= |q - D'Dq| |r|.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from earthvlm.byte_codes import BLOCK_ROWS, ROUNDING, ByteCodes

# Directions are taken until what they leave of a vector is this long, in the root mean square, in
# steps of whole registers. Where that takes more, bytes are read as fast and bound as well.
LARGEST_REST = 0.02
DIRECTIONS_STEP = 16
MOST_DIRECTIONS = 96
# Directions are found on a sample of rows; fewer would seem to lie in few directions by chance.
SAMPLE_ROWS = 20_000
FEWEST_ROWS = 2_000


@dataclass(frozen=True, eq=False)
class PrincipalParts:
    """N vectors of D numbers around their mean, in K directions.

    parts: float32 `[N, K]`. mean: float32 `[D]`. directions: float32 `[K, D]`.
    rests: float32 `[N]`, the length of what the parts leave out, NaN in rows without a vector.
    """

    parts: np.ndarray
    mean: np.ndarray
    directions: np.ndarray
    rests: np.ndarray

    @classmethod
    def encode(
        cls, vectors: np.ndarray, mean: np.ndarray, directions: np.ndarray, out: np.ndarray
    ) -> PrincipalParts:
        """Encode float32 `[N, D]`, NaN where a row has none, into `out`, float32 `[N, K]`."""
        rests = np.empty(len(vectors), np.float32)
        for first in range(0, len(vectors), BLOCK_ROWS):
            block = slice(first, first + BLOCK_ROWS)
            centred = vectors[block] - mean
            parts = centred @ directions.T
            rests[block] = np.linalg.norm(centred - parts @ directions, axis=1)
            out[block] = np.nan_to_num(parts)
        return cls(out, mean, directions, rests)

    @property
    def present(self) -> np.ndarray:
        """Which rows have a vector, bool `[N]`."""
        return ~np.isnan(self.rests)

    def compare(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each query of `[Q, D]`: estimates `[N]`, and how far each is off; see ByteCodes."""
        parts = queries @ self.directions.T
        rests = np.linalg.norm(queries - parts @ self.directions, axis=1)
        # One query reads the parts once; more of them share what is read.
        estimates = (self.parts @ parts[0])[None] if len(parts) == 1 else parts @ self.parts.T
        estimates += (queries @ self.mean)[:, None]
        for estimate, rest in zip(estimates, rests, strict=True):
            yield estimate, rest * self.rests + np.float32(ROUNDING)

    def points(self, rows: np.ndarray) -> np.ndarray:
        """Some rows as points `[n, K + 1]`, the nearer to a query's the nearer the vectors are.

        Between vectors of unit length, 2 - 2 q.x = |Dq - Dx|^2 + |r|^2 + what only the query tells
        - 2 q.r, of which the last is left out.
        """
        return np.column_stack([self.parts[rows], self.rests[rows]])

    def query_points(self, queries: np.ndarray) -> np.ndarray:
        """Queries `[Q, D]` as points `[Q, K + 1]`."""
        parts = (queries - self.mean) @ self.directions.T
        return np.column_stack([parts, np.zeros(len(parts), np.float32)])


def encode_vectors(
    vectors: np.ndarray, allocate: Callable[..., np.ndarray] = lambda name, *what: np.empty(*what)
) -> PrincipalParts | ByteCodes:
    """Encode float32 `[N, D]`, NaN where a row has none, for a first pass over them.

    allocate: makes the largest array, from its name, shape and type.
    """
    found = find_directions(vectors)
    if found is None:
        return ByteCodes.encode(vectors, allocate("codes", vectors.shape, np.int8))
    out = allocate("parts", (len(vectors), len(found[1])), np.float32)
    return PrincipalParts.encode(vectors, *found, out)


def find_directions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The mean `[D]` and the directions `[K, D]` that say nearly all, None where it takes many."""
    sample = vectors[:: max(1, len(vectors) // SAMPLE_ROWS)]
    sample = sample[~np.isnan(sample[:, 0])].astype(np.float64)
    if len(sample) < FEWEST_ROWS:
        return None
    mean = sample.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(sample.T, bias=True))
    left = np.cumsum(variances.clip(min=0))  # by all but so many of the largest, from the last on
    needed = len(left) - int(np.searchsorted(left, LARGEST_REST**2, side="right"))
    count = max(1, -(-needed // DIRECTIONS_STEP)) * DIRECTIONS_STEP
    if count > MOST_DIRECTIONS:
        return None
    largest = directions[:, ::-1][:, :count].T
    return mean.astype(np.float32), np.ascontiguousarray(largest, np.float32)
