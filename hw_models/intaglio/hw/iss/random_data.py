"""Random constants and fields for random programs: mostly of use, sometimes extreme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.hw.iss.memory import PIXEL_SLOTS

_STD = 74
"""Standard deviation of a uniform int8."""
_MULTIPLIER_BITS = 26


@dataclass(frozen=True)
class Geometry:
    """How an image is cut into patches."""

    channels: int
    patch_h: int
    patch_w: int
    grid_h: int
    grid_w: int

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return math.prod(self.fields.values())

    @property
    def fields(self) -> dict[str, int]:
        """As fields of LOAD_IMAGE."""
        return asdict(self)


def geometries(config: AcceleratorConfig, rng: np.random.Generator) -> list[Geometry]:
    """Three ways to cut an image, each with whole beats per band of a channel."""
    found: list[Geometry] = []
    while len(found) < 3:
        channels, patch_h, patch_w, grid_h, grid_w = (
            int(rng.integers(1, most + 1)) for most in (PIXEL_SLOTS, 8, 16, 4, 6)
        )
        if patch_h * patch_w * grid_w % config.depth == 0:
            found.append(Geometry(channels, patch_h, patch_w, grid_h, grid_w))
    return found


class Dice:
    """A random generator that knows what the accelerator's numbers look like."""

    def __init__(self, config: AcceleratorConfig, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng

    def below(self, limit: int) -> int:
        """An integer in 0 .. limit - 1."""
        return int(self.rng.integers(0, limit))

    def between(self, low: int, high: int) -> int:
        """An integer in low .. high."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def choice(self, values: Sequence[str]) -> str:
        """One of `values`."""
        return values[self.below(len(values))]

    def int8(self, shape: tuple[int, ...]) -> NDArray[np.int8]:
        """Uniform; or all -128, all 127, the ends only, small values."""
        style = self.below(10)
        if style < 2:
            return np.full(shape, (-128, 127)[style], np.int8)
        if style == 2:
            return self.rng.choice(np.array([-128, 127], np.int8), shape)
        if style == 3:
            return self.rng.integers(-3, 4, shape, np.int8)
        return self.rng.integers(-128, 128, shape, np.int8)

    def multiplier(self) -> int:
        """Up to 26 bits; sometimes 0 or the largest."""
        if self.chance(0.1):
            return (0, (1 << _MULTIPLIER_BITS) - 1)[self.below(2)]
        return self.between(1, (1 << self.between(8, _MULTIPLIER_BITS)) - 1)

    def shift(self, magnitude: float, target: float, high: int = 62) -> int:
        """What brings values of `magnitude` to about `target`, give or take a factor 4; sometimes anything."""
        if self.chance(0.05):
            return self.between(1, high)
        exact = round(math.log2(max(magnitude, 1) / target))
        return min(max(exact + self.between(-2, 2), 1), high)

    def zero(self, wide: int) -> int:
        """A zero point of the type."""
        limit = 1 << (15 if wide else 7)
        return self.between(-limit, limit - 1) if self.chance(0.3) else self.between(-10, 10)

    def params(self, groups: int, k_steps: int, wide: int) -> NDArray[np.uint64]:
        """Bias, multiplier and shift of every channel, as LOAD_PARAMS reads them: uint64 [channels]."""
        depth = k_steps * self.config.depth
        spread = _STD * _STD * math.sqrt(depth)
        limit = (1 << 31) - 1 - (depth << 14)
        words = []
        for _ in range(groups * self.config.group):
            bias = (
                self.between(-limit, limit) if self.chance(0.1) else self.between(-int(spread), int(spread))
            )
            bias = (limit, -limit)[self.below(2)] if self.chance(0.03) else bias
            multiplier = self.multiplier()
            shift = self.shift(spread * multiplier, 1 << (14 if wide else 6)) if multiplier else 1
            words.append(bias & 0xFFFFFFFF | multiplier << 32 | shift << 58)
        return np.array(words, np.uint64)

    def gemm_flags(self) -> dict[str, int]:
        """A legal combination of flags, and the zero point."""
        wide, residual, o_wide, r_wide, o_bank = (self.below(2) for _ in range(5))
        table = 0 if wide else self.below(2)
        if not residual:
            r_wide = 0
            o_wide = o_wide if table else wide
        return {
            "wide": wide, "table": table, "residual": residual, "o_wide": o_wide, "r_wide": r_wide, "o_bank": o_bank,
            "zero": self.zero(wide),
        }  # fmt: skip

    def add_fields(self, flags: dict[str, int]) -> dict[str, int]:
        """Fields of the residual sum."""
        signs = [(-1, 1)[self.below(2)] for _ in range(2)]
        multipliers = [sign * self.multiplier() for sign in signs]
        a_peak = 1 << (15 if flags["wide"] or flags["table"] else 7)
        b_peak = 1 << (15 if flags["r_wide"] else 7)
        magnitude = max(abs(multipliers[0]) * a_peak, abs(multipliers[1]) * b_peak, 2)
        offset = self.between(-magnitude, magnitude)
        if self.chance(0.05):
            offset = (-1, 1)[self.below(2)] << 46
        shift = self.shift(magnitude, 1 << (15 if flags["o_wide"] else 7))
        return {
            "add_a": multipliers[0], "add_b": multipliers[1], "add_offset": offset, "add_shift": shift,
            "add_zero": self.zero(flags["o_wide"]),
        }  # fmt: skip

    def activation(self, wide: bool) -> NDArray[np.int16]:
        """An activation table, int8 values unless `wide`."""
        if wide and self.chance(0.7):
            return self.rng.integers(-(1 << 15), 1 << 15, 256, np.int16)
        return self.int8((256,)).astype(np.int16)

    def exponential(self) -> NDArray[np.int16]:
        """An exponential table; the first entry is 2^15 - 1, as in all that a compiler makes."""
        top = (1 << 15) - 1
        style = self.below(4)
        if style == 0:
            entries = self.rng.integers(0, top + 1, 256)
        elif style == 1:
            entries = np.full(256, self.below(2) * top)
        else:
            entries = np.rint(top * np.exp(-np.arange(256) * self.rng.uniform(0.005, 1))).astype(np.int64)
        entries[0] = top
        return entries.astype(np.int16)

    def norm(self, channels: int) -> tuple[dict[str, int], NDArray[np.int64]]:
        """Fields eps, shift, zero of LAYERNORM, and its constants int64 [channels, 2]."""
        bits = 25 if self.chance(0.1) else self.between(8, 17)
        gain = self.rng.integers(-(1 << bits), 1 << bits, channels)
        shift = self.shift(float(1 << (bits + 19)), 64)
        limit = 1 << (61 if self.chance(0.1) else min(shift + 7, 61))
        offset = self.rng.integers(-limit, limit, channels, endpoint=True)
        eps = self.below(1 << self.below(62)) if self.chance(0.7) else self.below(2) << 61
        fields = {"eps": eps, "shift": shift, "zero": self.zero(0)}
        return fields, np.stack([gain & 0xFFFFFFFF, offset], axis=1)

    def attention(self, qk_steps: int) -> dict[str, int]:
        """Multipliers, shifts and zero points of ATTENTION."""
        spread = _STD * _STD * math.sqrt(qk_steps * self.config.depth)
        score, result = self.multiplier(), self.multiplier()
        zeros = {name: self.zero(0) if self.chance(0.5) else 0 for name in ("q_zero", "k_zero", "v_zero")}
        return zeros | {
            "score_bias": qk_steps * self.config.depth * zeros["q_zero"] * zeros["k_zero"],
            "score_multiplier": score, "score_shift": self.shift(spread * score, 30), "score_zero": self.zero(0),
            "multiplier": result, "shift": self.shift(result, 1.0, 48), "zero": self.zero(0),
        }  # fmt: skip

    def piece(self, geometry: Geometry) -> int:
        """A power of two that divides patch_w and does not exceed D."""
        pieces = [
            1 << i for i in range(5) if geometry.patch_w % (1 << i) == 0 and 1 << i <= self.config.depth
        ]
        return pieces[self.below(len(pieces))]
