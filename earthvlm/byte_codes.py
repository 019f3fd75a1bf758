"""ByteCodes: vectors as one byte a number, with a proven bound on what that costs.

A first pass over a quarter of the bytes tells which vectors can be among the nearest; only those
are compared in full. With y = x - mean = scale * code + e and q = t * d + f, the inequality of
Cauchy and Schwarz gives |q.y - scale * t * (code.d)| <= |q| |e| + |f| |scale * code|.
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
    """N vectors of D numbers around their mean.

    codes: int8 `[N, D]`. mean: float32 `[D]`. bounds: float32 `[3, N]`: each row's scale, the
    length of what its code leaves out, and the length of what its code says. Rows without a vector
    have NaN there.
    """

    codes: np.ndarray
    mean: np.ndarray
    bounds: np.ndarray

    @classmethod
    def encode(cls, vectors: np.ndarray, codes: np.ndarray) -> ByteCodes:
        """Encode float32 `[N, D]`, NaN where a row has none, into `codes`, int8 `[N, D]`."""
        count, size = vectors.shape
        bounds = np.empty((3, count), np.float32)
        blocks = [slice(first, first + BLOCK_ROWS) for first in range(0, count, BLOCK_ROWS)]
        total, present = np.zeros(size), 0
        for block in blocks:
            whole = vectors[block][~np.isnan(vectors[block, 0])]
            total, present = total + whole.sum(axis=0, dtype=np.float64), present + len(whole)
        mean = (total / max(present, 1)).astype(np.float32)
        for block in blocks:
            centred = vectors[block] - mean
            scale = np.abs(centred).max(axis=1) / LARGEST_CODE
            divisor = np.where(scale > 0, scale, 1)[:, None]
            code = np.rint(centred / divisor)
            said = code * scale[:, None]
            codes[block] = np.nan_to_num(code)
            rest = np.linalg.norm(centred - said, axis=1)
            bounds[:, block] = scale, rest, np.linalg.norm(said, axis=1)
        return cls(codes, mean, bounds)

    @property
    def present(self) -> np.ndarray:
        """Which rows have a vector, bool `[N]`."""
        return ~np.isnan(self.bounds[0])

    def compare(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each query of `[Q, 384]` of unit length: estimates `[N]`, and how far each is off.

        The cosine lies within the second of the first, for certain; both are NaN for rows without
        a vector. Use it only where `multiplies_bytes`.
        """
        import torch

        scale, rest, said = self.bounds
        step = np.abs(queries).max(axis=1) / LARGEST_CODE
        digits = np.rint(queries / step[:, None])
        unsaid = np.linalg.norm(queries - digits * step[:, None], axis=1)
        around = queries @ self.mean
        digits, codes = torch.from_numpy(digits.astype(np.int8)), torch.from_numpy(self.codes)
        # One query reads the codes at the speed of memory; for more, sums stay in a core's cache.
        block_rows = len(codes) if len(queries) == 1 else BATCH_ROWS
        estimates = np.empty((len(queries), len(codes)), np.float32)
        for first in range(0, len(codes), block_rows):
            block = slice(first, first + block_rows)
            sums = torch._int_mm(digits, codes[block].t()).numpy()
            np.multiply(sums, scale[block], out=estimates[:, block], casting="unsafe")
            estimates[:, block] *= step[:, None]
            estimates[:, block] += around[:, None]
        for estimate, length in zip(estimates, unsaid, strict=True):
            yield estimate, rest + length * said + np.float32(ROUNDING)


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
