"""What every integer op is made of: types, grids, cost, and the checks that op files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Attrs = Mapping[str, Any]

ACTIVATIONS = ("int8", "int16")
ACCUMULATORS = ("int32", "int64")

# acc * multiplier stays below 2^PRODUCT_BITS, so that adding the rounding constant cannot leave int64.
PRODUCT_BITS = 62


@dataclass(frozen=True)
class TensorType:
    """Static shape and NumPy dtype name of one tensor."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Grid:
    """The grid an activation lives on: ``real = scale * (q - zero_point)``.

    Raises ValueError if the scale is not positive and finite, the dtype is no activation type, or the zero point
    is outside of it.
    """

    scale: float
    zero_point: int
    dtype: str

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"Grid: scale must be positive and finite, not {self.scale!r}.")
        if self.dtype not in ACTIVATIONS:
            raise ValueError(f"Grid: dtype must be int8 or int16, not {self.dtype!r}.")
        if not self.minimum <= self.zero_point <= self.maximum:
            raise ValueError(f"Grid: zero point must fit {self.dtype}, not {self.zero_point!r}.")

    @property
    def minimum(self) -> int:
        return int(np.iinfo(self.dtype).min)

    @property
    def maximum(self) -> int:
        return int(np.iinfo(self.dtype).max)

    @property
    def reach(self) -> int:
        """The largest ``|q - zero_point|``."""
        return max(self.maximum - self.zero_point, self.zero_point - self.minimum)

    def values(self) -> NDArray[np.float64]:
        """The real value of every integer of the type, lowest first."""
        return self.dequantize(np.arange(self.minimum, self.maximum + 1))

    def dequantize(self, q: Array) -> NDArray[np.float64]:
        return np.asarray((np.asarray(q, np.float64) - self.zero_point) * self.scale)

    def quantize(self, real: Array) -> Array:
        """ONNX QuantizeLinear in float64: divide, round half to even, add the zero point, saturate."""
        rounded = np.rint(np.asarray(real, np.float64) / self.scale) + self.zero_point
        if np.isnan(rounded).any():
            raise ValueError("Grid: cannot quantize NaN.")
        return np.clip(rounded, self.minimum, self.maximum).astype(self.dtype)


@dataclass(frozen=True)
class Built:
    """What a builder hands to a pass: the op's constants, in argument order, and its attributes."""

    constants: list[Array]
    attrs: dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """Work of one call.

    `macs`: multiply-accumulates of matrix products; `multiplies`: requantizations and elementwise products;
    `lookups`: table reads; `divides`: integer divisions and square roots; `bytes_weights`: constants read;
    `bytes_moved`: activations read and written.
    """

    macs: int = 0
    multiplies: int = 0
    lookups: int = 0
    divides: int = 0
    bytes_weights: int = 0
    bytes_moved: int = 0


@dataclass(frozen=True)
class IntegerOp:
    """One integer op: shape rule, meaning and cost.

    `infer` raises ValueError with one sentence if arity, types or attributes do not fit. `reference` expects what
    `infer` accepts and returns an array of exactly the inferred type.
    """

    name: str
    summary: str
    infer: Callable[[Sequence[TensorType], Attrs], TensorType]
    reference: Callable[[Sequence[Array], Attrs], Array]
    cost: Callable[[Sequence[TensorType], Attrs], Cost]


def check_count(op: str, types: Sequence[TensorType], count: int) -> None:
    """Check the number of operands."""
    if len(types) != count:
        raise ValueError(f"{op}: expects {count} tensors, not {len(types)}.")


def check_dtype(op: str, what: str, actual: TensorType, allowed: Sequence[str]) -> None:
    """Check the dtype of one tensor."""
    if actual.dtype not in allowed:
        raise ValueError(f"{op}: {what} must be {' or '.join(allowed)}, not {actual.dtype}.")


def check_type(op: str, what: str, actual: TensorType, allowed: Sequence[str], shape: Sequence[int]) -> None:
    """Check dtype and shape of one tensor."""
    check_dtype(op, what, actual, allowed)
    if actual.shape != tuple(shape):
        raise ValueError(f"{op}: {what} must have shape {list(shape)}, not {list(actual.shape)}.")


def check_rank(op: str, what: str, actual: TensorType, minimum: int) -> None:
    """Check that a tensor has at least `minimum` dimensions."""
    if len(actual.shape) < minimum:
        raise ValueError(
            f"{op}: {what} must have at least {minimum} dimensions, not shape {list(actual.shape)}."
        )


def integer(op: str, attrs: Attrs, name: str, low: int, high: int) -> int:
    """The integer attribute `name`, checked to lie in ``low..high``."""
    value = _attribute(op, attrs, name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{op}: attribute {name} must be an integer in {low}..{high}, not {value!r}.")
    return value


def integers(op: str, attrs: Attrs, name: str, length: int | None = None) -> list[int]:
    """The attribute `name` as a list of integers, of `length` elements if given."""
    value = _attribute(op, attrs, name)
    is_list = isinstance(value, list | tuple) and all(isinstance(item, int) for item in value)
    if not is_list or (length is not None and len(value) != length):
        wanted = "a list of integers" if length is None else f"a list of {length} integers"
        raise ValueError(f"{op}: attribute {name} must be {wanted}, not {value!r}.")
    return list(value)


def choice(op: str, attrs: Attrs, name: str, allowed: Sequence[str]) -> str:
    """The string attribute `name`, checked to be one of `allowed`."""
    value = _attribute(op, attrs, name)
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{op}: attribute {name} must be {' or '.join(allowed)}, not {value!r}.")
    return value


def axis_of(op: str, attrs: Attrs, rank: int) -> int:
    """The attribute `axis`, non-negative and below `rank`."""
    return integer(op, attrs, "axis", 0, rank - 1)


def output_grid(op: str, attrs: Attrs, prefix: str = "") -> str:
    """Check `dtype` and `zero_point` and return the dtype."""
    dtype = choice(op, attrs, prefix + "dtype", ACTIVATIONS)
    limits = np.iinfo(dtype)
    integer(op, attrs, prefix + "zero_point", int(limits.min), int(limits.max))
    return dtype


def _attribute(op: str, attrs: Attrs, name: str) -> Any:
    if name not in attrs:
        raise ValueError(f"{op}: attribute {name} is missing.")
    return attrs[name]
