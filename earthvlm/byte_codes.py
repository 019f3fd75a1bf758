"""ByteCodes: vectors by one byte for each of some components, with a proven bound on the rest.

A first pass over a fraction of the bytes tells which vectors can be among the nearest; only those
are compared in full. With y = x - mean, D the directions, orthonormal, and r = y - D'Dy; with
Dy = scale * code + e, c = q - mean and Dc = t * d + f, the inequality of Cauchy and Schwarz gives
|c.y - scale * t * (code.d)| <= |Dc| |e| + |f| |scale * code| + |c - D'Dc| |r|, and
q.x = c.y + y.mean + q.mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

LARGEST_CODE = 127
BLOCK_ROWS = 16_384
BATCH_ROWS = 4_096
# What float32 sums of 384 products may be off, far above their rounding (about 1e-6).
ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class ByteCodes:
    """N vectors of D numbers around their mean, in K directions.

    codes: int8 `[N, K]`. mean: float32 `[D]`. directions: float32 `[K, D]`. levels: float32 `[N]`,
    each row's part along the mean, times its length. bounds: float32 `[4, N]`: each row's scale,
    and the lengths of what its code leaves out, of what its code says, and of what lies in other
    directions. Rows without a vector have NaN in levels and bounds.
    """

    codes: np.ndarray
    mean: np.ndarray
    directions: np.ndarray
    levels: np.ndarray
    bounds: np.ndarray

    @classmethod
    def encode(
        cls, vectors: np.ndarray, mean: np.ndarray, directions: np.ndarray, out: np.ndarray
    ) -> ByteCodes:
        """Encode float32 `[N, D]`, NaN where a row has none, into `out`, int8 `[N, K]`."""
        levels = np.empty(len(vectors), np.float32)
        bounds = np.empty((4, len(vectors)), np.float32)
        for first in range(0, len(vectors), BLOCK_ROWS):
            block = slice(first, first + BLOCK_ROWS)
            centred = vectors[block] - mean
            parts = centred @ directions.T
            scale = np.abs(parts).max(axis=1) / LARGEST_CODE
            code = np.rint(parts / np.where(scale > 0, scale, 1)[:, None])
            said = code * scale[:, None]
            out[block] = np.nan_to_num(code)
            levels[block] = centred @ mean
            lengths = (parts - said, said, centred - parts @ directions)
            bounds[:, block] = scale, *(np.linalg.norm(each, axis=1) for each in lengths)
        return cls(out, mean, directions, levels, bounds)

    @property
    def present(self) -> np.ndarray:
        """Which rows have a vector, bool `[N]`."""
        return ~np.isnan(self.levels)

    def compare(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each query of `[Q, D]`: estimates `[N]`, and how far each is off.

        The cosine lies within the second of the first, for certain; both are NaN for rows without
        a vector. Use it only where `multiplies_bytes`.
        """
        import torch

        scale, unsaid, said, beside = self.bounds
        centred = queries - self.mean
        parts = centred @ self.directions.T
        step = np.maximum(np.abs(parts).max(axis=1), np.finfo(np.float32).tiny) / LARGEST_CODE
        digits = np.rint(parts / step[:, None])
        left = (parts, parts - digits * step[:, None], centred - parts @ self.directions)
        lengths = zip(*(np.linalg.norm(each, axis=1) for each in left), strict=True)
        level = queries @ self.mean
        digits, codes = torch.from_numpy(digits.astype(np.int8)), torch.from_numpy(self.codes)
        # One query reads the codes at the speed of memory; for more, sums stay in a core's cache.
        block_rows = len(codes) if len(queries) == 1 else BATCH_ROWS
        estimates = np.empty((len(queries), len(codes)), np.float32)
        for first in range(0, len(codes), block_rows):
            block = slice(first, first + block_rows)
            sums = torch._int_mm(digits, codes[block].t()).numpy()
            np.multiply(sums, scale[block], out=estimates[:, block], casting="unsafe")
            estimates[:, block] *= step[:, None]
            estimates[:, block] += self.levels[block]
            estimates[:, block] += level[:, None]
        for estimate, (whole, rest, aside) in zip(estimates, lengths, strict=True):
            off = whole * unsaid
            off += rest * said
            off += aside * beside
            off += np.float32(ROUNDING)
            yield estimate, off


@cache
def multiplies_bytes() -> bool:
    """Whether this torch multiplies int8 matrices on this processor, and exactly.

    Processors without instructions for it may cut sums off at 16 bits.
    """
    import torch

    multiply = getattr(torch, "_int_mm", None)
    if multiply is None:
        return False
    left = np.full((4, 384), LARGEST_CODE, np.int8)
    left[1], left[2, ::2] = -LARGEST_CODE, -1
    right = np.full((384, 64), LARGEST_CODE, np.int8)
    right[:, 1::2] = -LARGEST_CODE
    right[::3, 2] = 5
    expected = left.astype(np.int64) @ right
    try:
        product = [
            multiply(torch.from_numpy(rows), torch.from_numpy(right.T.copy()).t()).numpy()
            for rows in (left, left[:1])
        ]
    except (RuntimeError, NotImplementedError):
        return False
    return all(np.array_equal(found, expected[: len(found)]) for found in product)
