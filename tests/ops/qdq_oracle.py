"""Float64 evaluation on the QDQ grid: dequantize, the real op, quantize. Shares no arithmetic with the ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from intaglio import ops
from intaglio.ops.reference import type_of

DTYPES = ("int8", "int16")

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(DTYPES)
kinds = st.sampled_from(("uniform", "normal", "lowest", "highest", "constant rows", "two levels"))


def execute(name: str, inputs: Sequence[np.ndarray], built: ops.Built) -> np.ndarray:
    """Run an op on `inputs` and its built constants; the result must have the inferred type."""
    op = ops.get(name)
    arguments = [*inputs, *built.constants]
    inferred = op.infer([type_of(a) for a in arguments], built.attrs)
    result = op.reference(arguments, built.attrs)
    assert type_of(result) == inferred
    return result


def array(rng: np.random.Generator, shape: Sequence[int], dtype: str, kind: str = "uniform") -> np.ndarray:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if kind == "lowest":
        return np.full(shape, low, dtype)
    if kind == "highest":
        return np.full(shape, high, dtype)
    if kind == "constant rows":
        rows = rng.integers(low, high, (*shape[:-1], 1), endpoint=True)
        return np.broadcast_to(rows, shape).astype(dtype)
    if kind == "two levels":
        return rng.choice([low, high], shape).astype(dtype)
    if kind == "normal":
        return np.clip(np.rint(rng.normal(size=shape) * high / 4), low, high).astype(dtype)
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


def grid(rng: np.random.Generator, dtype: str, scale: float | None = None) -> ops.Grid:
    """A grid with a random zero point (0 in one of three), the real range of int8 and int16 being alike."""
    if scale is None:
        scale = float(np.exp(rng.uniform(np.log(1e-3), np.log(0.5)))) / (1 if dtype == "int8" else 256)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    zero_point = 0 if rng.random() < 1 / 3 else int(rng.integers(low // 2, high // 2))
    return ops.Grid(scale, zero_point, dtype)


def fitted(rng: np.random.Generator, real: np.ndarray, dtype: str, spread: float = 1.0) -> ops.Grid:
    """An output grid whose range covers about `spread` times the real values."""
    largest = float(np.max(np.abs(real))) or 1.0
    scale = largest * spread * rng.uniform(0.7, 1.3) / np.iinfo(dtype).max
    return grid(rng, dtype, scale)


class Agreement:
    """Counts how often integer results equal the QDQ value; each must be within `limit` LSB."""

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self.total = self.equal = self.worst = 0

    def add(self, actual: np.ndarray, real: np.ndarray, out: ops.Grid) -> None:
        expected = np.rint(real / out.scale) + out.zero_point
        limits = np.iinfo(out.dtype)
        difference = np.abs(
            actual.astype(np.int64) - np.clip(expected, limits.min, limits.max).astype(np.int64)
        )
        self.total += difference.size
        self.equal += int(np.count_nonzero(difference == 0))
        self.worst = max(self.worst, int(difference.max(initial=0)))
        assert self.worst <= self.limit, f"{self.worst} LSB from the QDQ value"

    @property
    def share(self) -> float:
        return self.equal / self.total


def within_one(actual: np.ndarray, real: np.ndarray, out: ops.Grid) -> None:
    Agreement().add(actual, real, out)


def softmax(real: np.ndarray) -> np.ndarray:
    e = np.exp(real - real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layernorm(real: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float) -> np.ndarray:
    """0 where variance and epsilon are both 0."""
    deviation = real - real.mean(axis=-1, keepdims=True)
    spread = np.sqrt((deviation * deviation).mean(axis=-1, keepdims=True) + epsilon)
    return deviation / np.where(spread > 0, spread, 1) * gamma + beta


def tensor(shape: Sequence[int], dtype: str = "int8") -> ops.TensorType:
    return ops.TensorType(tuple(shape), dtype)


_OUT: dict[str, Any] = {"zero_point": 3, "dtype": "int8"}
_SCALED: dict[str, Any] = {"multiplier": 70000, "shift": 20, **_OUT}
_WEIGHTS = [tensor((7, 12)), tensor((7,), "int32"), tensor((7,), "int32"), tensor((7,), "int32")]
_ADD: dict[str, Any] = {
    "a_multiplier": 70000,
    "b_multiplier": -300,
    "offset": -(1 << 60),
    "shift": 17,
    **_OUT,
}


def _experts(channels: int, depth: int, bias: str) -> list[ops.TensorType]:
    """Weight, bias, multiplier and shift of one projection of three experts."""
    each = (3, channels)
    return [tensor((*each, depth)), tensor(each, bias), tensor(each, "int32"), tensor(each, "int32")]


# One valid call of every op: operand types, attributes, result type.
SAMPLES: dict[str, tuple[list[ops.TensorType], dict[str, Any], ops.TensorType]] = {
    "quantize_input": (
        [tensor((2, 3, 4, 4), "uint8"), tensor((3, 256), "int16")],
        {},
        tensor((2, 3, 4, 4), "int16"),
    ),
    "patch_embed": (
        [tensor((2, 3, 4, 6)), *_WEIGHTS],
        {"acc_dtype": "int32", "patch": [2, 2], **_OUT},
        tensor((2, 6, 7)),
    ),
    "linear": (
        [tensor((5, 12)), *_WEIGHTS, tensor((256,), "int16"), tensor((5, 7))],
        {"acc_dtype": "int32", "has_table": 1, "has_residual": 1, **_OUT}
        | {f"add_{name}": value for name, value in (_ADD | {"dtype": "int16"}).items()},
        tensor((5, 7), "int16"),
    ),
    "matmul": (
        [tensor((2, 3, 5)), tensor((2, 4, 5), "int16")],
        {"a_zero": 1, "b_zero": -9, "transpose_b": 1, "acc_dtype": "int64", **_SCALED},
        tensor((2, 3, 4)),
    ),
    "attention": (
        [
            tensor((1, 2, 5, 4)),
            tensor((1, 2, 6, 4)),
            tensor((1, 2, 6, 3), "int16"),
            tensor((1, 256), "uint32"),
        ],
        {
            "q_zero": 0,
            "k_zero": 1,
            "v_zero": 2,
            "score_acc_dtype": "int32",
            "score_multiplier": 70000,
            "score_shift": 20,
            "score_zero": 0,
            "score_dtype": "int8",
            "e_bits": 15,
            "acc_dtype": "int32",
            "acc_shift": 0,
            "multiplier": 1 << 25,
            "shift": 30,
            **_OUT,
        },
        tensor((1, 2, 5, 3)),
    ),
    "softmax": (
        [tensor((5, 6), "int16"), tensor((2, 256), "uint32")],
        {"e_bits": 22, "multiplier": 1 << 30, "shift": 14, "zero_point": 0, "dtype": "int16"},
        tensor((5, 6), "int16"),
    ),
    "moe": (
        [
            tensor((2, 5, 12)),
            tensor((2, 5, 3), "int16"),
            tensor((2, 256), "uint32"),
            *_experts(9, 12, "int32"),
            tensor((3, 256)),
            *_experts(7, 9, "int64"),
        ],
        {
            "k": 2,
            "normalize": 1,
            "acc1_dtype": "int32",
            "acc2_dtype": "int64",
            "has_table": 1,
            "hidden_zero": -3,
            "y_zero": 4,
            "multiplier": 1 << 25,
            "shift": 30,
            **_OUT,
        },
        tensor((2, 5, 7)),
    ),
    "layernorm": (
        [tensor((5, 8), "int16"), tensor((8,), "int32"), tensor((8,), "int64")],
        {"eps": 1 << 61, "shift": 30, "mean": "exact", **_OUT},
        tensor((5, 8)),
    ),
    "table": ([tensor((5, 8)), tensor((256,), "int16")], {}, tensor((5, 8), "int16")),
    "add": ([tensor((5, 8)), tensor((1, 1, 8), "int16")], _ADD, tensor((5, 8))),
    "rescale": (
        [tensor((5, 8), "int16"), tensor((1,), "int32"), tensor((8,), "int64")],
        {"shift": 20, **_OUT},
        tensor((5, 8)),
    ),
    "mean": ([tensor((2, 5, 8))], {"axis": 1, "keepdims": 1, "offset": -5, **_SCALED}, tensor((2, 1, 8))),
    "reshape": ([tensor((2, 6), "int32")], {"shape": [3, 4]}, tensor((3, 4), "int32")),
    "transpose": ([tensor((2, 3, 4))], {"axes": [2, 0, 1]}, tensor((4, 2, 3))),
    "slice": ([tensor((5, 6))], {"begin": [1, 0], "end": [5, 5], "strides": [2, 3]}, tensor((2, 2))),
    "concat": ([tensor((2, 3)), tensor((2, 1))], {"axis": 1}, tensor((2, 4))),
    "gather": ([tensor((2, 3))], {"axis": 1, "indices": [2, 2, 0, 1]}, tensor((2, 4))),
    "broadcast": ([tensor((1, 3))], {"shape": [4, 2, 3]}, tensor((4, 2, 3))),
    "argmax": ([tensor((2, 3))], {"axis": 1, "keepdims": 0}, tensor((2,), "int32")),
    "topk": ([tensor((2, 5))], {"k": 3}, tensor((2, 3), "int32")),
}
