"""The constants of products: one matrix, or several of one shape (of tasks, of experts), packed for the tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from intaglio.backends.cpu import gemm
from intaglio.backends.cpu.ir import minimum
from intaglio.backends.cpu.lanes import fits, pack_scales
from intaglio.backends.cpu.launch import Site
from intaglio.program import Array

# Pairs of a panel that leave room in a 32 KiB first-level cache.
BLOCK_PAIRS = 384


class Matrices(NamedTuple):
    """weight [G, N, K], bias, multiplier and shift [G, N], requantized to `zero_point`."""

    weight: Array
    bias: Array
    multiplier: Array
    shift: Array
    zero_point: int

    @classmethod
    def of(cls, site: Site, first: int, zero_point: int) -> Matrices:
        """Inputs `first` to `first + 3` of a step; one matrix is a group of one."""
        weight, bias, multiplier, shift = (site.constant(first + i) for i in range(4))
        group = weight.reshape(-1, *weight.shape[-2:])
        bias, multiplier, shift = (array.reshape(len(group), -1) for array in (bias, multiplier, shift))
        return cls(group, bias, multiplier, shift, zero_point)

    def blocks(self, x: str) -> int | None:
        """The fewest equal parts of the depth that stay in the cache and, for int64 sums, in int32 each.

        int32 sums may wrap in between: they are exact modulo 2^32 and the last one is known to fit. None if even one
        pair may pass int32.
        """
        reach, wide = -minimum(x), self.bias.dtype == np.int64
        pairs = gemm.even(self.weight.shape[2]) // 2
        padding = ((0, 0), (0, 0), (0, self.weight.shape[2] % 2))
        magnitude = np.abs(np.pad(self.weight.astype(np.int64), padding))
        parts = [blocks for blocks in range(1, pairs + 1) if pairs % blocks == 0]
        for blocks in [*(b for b in parts if pairs // b <= BLOCK_PAIRS), *parts]:
            largest = magnitude.reshape(*self.bias.shape, blocks, -1).sum(axis=3).max(initial=0)
            if not wide or int(largest) * reach < 1 << 31:
                return blocks
        return None

    def fit_lanes(self, x: str) -> bool:
        """Whether requantized values are known to fit int32 before they are clamped."""
        if self.bias.dtype == np.int64:
            return False
        peak = np.abs(self.weight.astype(np.int64)).sum(axis=2) * -minimum(x)
        peak += np.abs(self.bias.astype(np.int64))
        return fits(peak.astype(object) * self.multiplier.astype(object), self.shift, self.zero_point)

    def packed(self, lanes: bool) -> tuple[Array, Array, Array]:
        """Weights, biases and scales in panels, each [G, ...]; scales as `pack_scales` has them if `lanes`."""
        return (
            _each(gemm.pack_weights, self.weight),
            _each(gemm.by_panel, self.bias),
            np.stack([self._scales(index, lanes) for index in range(len(self.bias))]),
        )

    def _scales(self, index: int, lanes: bool) -> Array:
        multiplier, shift = (gemm.by_panel(array[index]) for array in (self.multiplier, self.shift))
        if lanes:
            return pack_scales(multiplier, shift, self.zero_point)
        return np.concatenate([multiplier, shift], axis=1).astype(np.int64)


def _each(function: Callable[[Array], Array], arrays: Array) -> Array:
    return np.stack([function(array) for array in arrays])
