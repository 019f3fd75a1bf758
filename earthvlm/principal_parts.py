"""PrincipalParts: vectors by their few largest components, with a proven bound on the rest.

A trained bridge places scenes in few of the directions there are, so that a first pass over those
tells which vectors can be among the nearest. With D the directions, orthonormal, y = x - mean,
c = q - mean and r = y - D'Dy, c.y = Dc.Dy + c.r, the inequality of Cauchy and Schwarz gives
|c.r| <= |c - D'Dc| |r|, and q.x = c.y + y.mean + q.mean.
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
# The same for bytes, which leave about 0.004 of a vector out in any case.
LARGEST_REST_OF_BYTES = 0.025
# Directions are found on a sample of rows; fewer would seem to lie in few directions by chance.
SAMPLE_ROWS = 20_000
FEWEST_ROWS = 2_000


@dataclass(frozen=True, eq=False)
class PrincipalParts:
    """N vectors of D numbers around their mean, in K directions.

    parts: float32 `[N, K]`. mean: float32 `[D]`. directions: float32 `[K, D]`. levels: float32
    `[N]`, each row's part along the mean, times its length. rests: float32 `[N]`, the length of
    what the parts leave out. Rows without a vector have NaN in levels and rests.
    """

    parts: np.ndarray
    mean: np.ndarray
    directions: np.ndarray
    levels: np.ndarray
    rests: np.ndarray

    @classmethod
    def encode(
        cls, vectors: np.ndarray, mean: np.ndarray, directions: np.ndarray, out: np.ndarray
    ) -> PrincipalParts:
        """Encode float32 `[N, D]`, NaN where a row has none, into `out`, float32 `[N, K]`."""
        levels, rests = np.empty((2, len(vectors)), np.float32)
        for first in range(0, len(vectors), BLOCK_ROWS):
            block = slice(first, first + BLOCK_ROWS)
            centred = vectors[block] - mean
            parts = centred @ directions.T
            levels[block] = centred @ mean
            rests[block] = np.linalg.norm(centred - parts @ directions, axis=1)
            out[block] = np.nan_to_num(parts)
        return cls(out, mean, directions, levels, rests)

    @property
    def present(self) -> np.ndarray:
        """Which rows have a vector, bool `[N]`."""
        return ~np.isnan(self.rests)

    def compare(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each query of `[Q, D]`: estimates `[N]`, and how far each is off; see ByteCodes."""
        centred = queries - self.mean
        parts = centred @ self.directions.T
        rests = np.linalg.norm(centred - parts @ self.directions, axis=1)
        # One query reads the parts once; more of them share what is read.
        estimates = (self.parts @ parts[0])[None] if len(parts) == 1 else parts @ self.parts.T
        estimates += self.levels
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
    mean, variances, directions = find_directions(vectors)
    needed = _count_directions(variances, LARGEST_REST)
    if needed <= MOST_DIRECTIONS:
        out = allocate("parts", (len(vectors), needed), np.float32)
        return PrincipalParts.encode(vectors, mean, directions[:needed], out)
    needed = _count_directions(variances, LARGEST_REST_OF_BYTES)
    out = allocate("codes", (len(vectors), needed), np.int8)
    return ByteCodes.encode(vectors, mean, turn_directions(directions[:needed]), out)


def find_directions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean `[D]`, variances `[D]`, largest first, and their directions `[D, D]`."""
    sample = vectors[:: max(1, len(vectors) // SAMPLE_ROWS)]
    sample = sample[~np.isnan(sample[:, 0])].astype(np.float64)
    size = vectors.shape[1]
    if len(sample) < FEWEST_ROWS:
        return np.zeros(size, np.float32), np.ones(size), np.eye(size, dtype=np.float32)
    variances, directions = np.linalg.eigh(np.cov(sample.T, bias=True))
    mean, directions = sample.mean(axis=0), directions[:, ::-1].T
    return mean.astype(np.float32), variances[::-1].clip(min=0), directions.astype(np.float32)


def _count_directions(variances: np.ndarray, largest_rest: float) -> int:
    """How many directions leave no more than this of a vector, in whole steps."""
    left = np.cumsum(variances[::-1])  # by all but so many of the largest, from the last on
    needed = len(left) - int(np.searchsorted(left, largest_rest**2, side="right"))
    return min(max(1, -(-needed // DIRECTIONS_STEP)) * DIRECTIONS_STEP, len(left))


def turn_directions(directions: np.ndarray) -> np.ndarray:
    """Other directions of the same space, in which no component of vectors is the largest.

    Largest ones would set the scale of a row's bytes, and coarsen all others.
    """
    drawn = np.random.default_rng(0).standard_normal((len(directions), len(directions)))
    return (np.linalg.qr(drawn)[0] @ directions).astype(np.float32)
