"""The rounding rule, dyadic multipliers, the integer square root and exact products."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.ops import arith


@given(st.integers(-(2**61), 2**61), st.integers(1, 62))
def test_round_shift_rounds_half_up(value: int, shift: int) -> None:
    exact = math.floor(Fraction(value, 2**shift) + Fraction(1, 2))
    assert int(arith.round_shift(np.int64(value), shift)) == exact


@given(st.floats(2.0**-40, 2.0**15), st.sampled_from((17, 24, 31)))
def test_dyadic_is_normalized_and_accurate(ratio: float, bits: int) -> None:
    if ratio < 2.0 ** (bits - 62):
        return
    multiplier, shift = arith.dyadic(ratio, bits)
    assert 2 ** (bits - 1) <= multiplier < 2**bits
    assert 1 <= shift <= 62
    assert abs(Fraction(multiplier, 2**shift) - Fraction(ratio)) <= Fraction(ratio) / 2**bits


@given(st.floats(2.0**-1000, 2.0**-47), st.integers(0, 2**45))
def test_a_ratio_below_every_shift_rounds_to_zero_as_it_should(ratio: float, acc: int) -> None:
    multiplier, shift = arith.dyadic(ratio, 17)
    assert abs(acc * Fraction(multiplier, 2**shift) - acc * Fraction(ratio)) < Fraction(1, 2)


def test_dyadic_at_the_edges() -> None:
    assert arith.dyadic(1.0, 17) == (1 << 16, 16)
    assert arith.dyadic(np.nextafter(1.0, 0), 17) == (1 << 16, 16)
    assert arith.dyadic(2.0**-46, 17) == (1 << 16, 62)
    assert arith.dyadic(2.0**-47, 17) == (0, 1)
    with pytest.raises(ValueError, match="too large for a 17-bit multiplier"):
        arith.dyadic(2.0**17, 17)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="ratio must be positive and finite"):
            arith.dyadic(bad, 17)


def test_dyadic_within_shortens_the_multiplier_to_keep_the_product_below_2_to_the_62() -> None:
    bound = 3072 << 30
    multiplier, _ = arith.dyadic_within(1e-9, 24, bound)
    assert 2**19 <= multiplier < 2**20
    assert bound * multiplier < 2**62
    with pytest.raises(ValueError, match="leave 12 bits for the multiplier; 24 are wanted"):
        arith.dyadic_within(1e-9, 24, 1 << 49)


@given(st.lists(st.tuples(st.floats(1e-25, 2.0**6), st.integers(0, 2**43)), min_size=1, max_size=20))
def test_dyadics_are_those_of_every_ratio_and_bound(pairs: list[tuple[float, int]]) -> None:
    multipliers, shifts = arith.dyadics_within(
        np.array([r for r, _ in pairs]), 17, np.array([b for _, b in pairs])
    )
    assert [*zip(multipliers.tolist(), shifts.tolist(), strict=True)] == [
        arith.dyadic_within(ratio, 17, bound) for ratio, bound in pairs
    ]


def test_requantize_refuses_to_wrap() -> None:
    with pytest.raises(OverflowError, match="reaches 2\\^62"):
        arith.requantize(np.array([1 << 40]), np.array([1 << 23]), 40, 0, "int8")
    # Large accumulators next to short multipliers are fine.
    arith.requantize(np.array([1 << 40, 1 << 30]), np.array([1 << 20, 1 << 23]), 40, 0, "int8")


@given(st.lists(st.integers(0, 2**62 - 1), min_size=1, max_size=20))
def test_isqrt_is_exact(values: list[int]) -> None:
    assert arith.isqrt(np.array(values, np.int64)).tolist() == [math.isqrt(v) for v in values]


def test_isqrt_is_exact_next_to_squares() -> None:
    rng = np.random.default_rng(1)
    roots = np.concatenate([np.arange(1, 2000), rng.integers(1, 2**31 - 1, 20000), [2**31 - 1]]).astype(
        np.int64
    )
    for values, expected in (
        (roots * roots - 1, roots - 1),
        (roots * roots, roots),
        (roots * roots + 1, roots),
    ):
        assert np.array_equal(arith.isqrt(values), expected)
    assert arith.isqrt(np.array([0, 2**62 - 1])).tolist() == [0, 2**31 - 1]


@given(st.lists(st.integers(1, 2**62), min_size=1, max_size=20))
def test_bit_length_is_exact(values: list[int]) -> None:
    for value in [*values, 2**53 - 1, 2**54 - 1, 2**62 - 1]:
        assert int(arith.bit_length(np.array([value]))[0]) == value.bit_length()


@pytest.mark.parametrize("bits", [3, 12, 24, 29])
def test_exact_matmul_agrees_with_unbounded_integers(bits: int) -> None:
    rng = np.random.default_rng(bits)
    a, b = (rng.integers(-(2**bits), 2**bits, (9, 9), endpoint=True) for _ in range(2))
    a[0], b[:, 0] = 2**bits, -(2**bits)
    exact = a.astype(object) @ b.astype(object)
    assert np.array_equal(arith.exact_matmul(a, b, 9 << (2 * bits)).astype(object), exact)


def test_exact_matmul_refuses_what_does_not_fit() -> None:
    with pytest.raises(OverflowError, match="do not fit int64"):
        arith.exact_matmul(np.ones((1, 1)), np.ones((1, 1)), 1 << 63)


@given(st.lists(st.floats(1e-12, 1e3), min_size=1, max_size=8), st.sampled_from((17, 24)))
def test_shared_shift_gives_the_largest_multiplier_all_bits(ratios: list[float], bits: int) -> None:
    shift = arith.shared_shift(ratios, bits)
    largest = int(np.max(arith.scaled(np.array(ratios), shift)))
    assert 1 <= shift <= 44
    assert largest <= 2**bits
    assert largest >= 2 ** (bits - 1) or shift == 44


def test_shared_shift_at_the_edges() -> None:
    assert arith.shared_shift([0.0], 17) == 44
    assert arith.shared_shift([1e-300, 0.0], 17) == 44
    with pytest.raises(ValueError, match="too large"):
        arith.shared_shift([1e9], 17)
    with pytest.raises(ValueError, match="positive and finite"):
        arith.shared_shift([math.nan], 17)


def test_multiplier_bits_takes_the_widest_type() -> None:
    assert arith.multiplier_bits("int8") == 17
    assert arith.multiplier_bits("int8", "int16", "int8") == 24
    assert arith.operand_bits("int8", "int8") == 17
    assert arith.operand_bits("int8", "int16", "int8") == 26
