"""The constant arrays of a generated C program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from intaglio.backends.c.names import Names, ctype, identifier, number
from intaglio.program import Array, Tensor

# From this size int8 matrices are string literals: gcc 12 reads 5.7 M weights in 1.0 s and 0.13 GB as strings, in
# 17 s and 0.56 GB as numbers.
_STRING_SIZE = 1 << 14
# C11 promises only 4095 characters per literal; a row of 32 bytes is a line of at most 130 columns.
_ROW = 32
_LINE = 112
# Bytes of constants in one source file: bounds the memory of one compiler process.
_FILE_BYTES = 16 << 20


@dataclass(frozen=True)
class Constant:
    """One array as C text: `name`, element type, dimensions, and the lines of its initializer."""

    name: str
    ctype: str
    dims: tuple[int, ...]
    comment: str
    data: Array

    @property
    def is_text(self) -> bool:
        """Whether the array is written as rows of text (two dimensions)."""
        return len(self.dims) == 2

    @property
    def expression(self) -> str:
        """A pointer to the first element."""
        return f"(const int8_t *){self.name}" if self.is_text else self.name

    def lines(self) -> Iterator[str]:
        """The initializer's lines, without braces."""
        return _text_rows(self.data, self.dims[1]) if self.is_text else _number_lines(self.data)


class Constants:
    """Collects the arrays which the calls refer to, each once."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._arrays: dict[str, Constant] = {}

    def add(self, tensor: Tensor, dtype: str | None = None) -> str:
        """C expression of a constant tensor, converted to `dtype` (its values must fit)."""
        assert tensor.data is not None
        return self.add_array(tensor.name, tensor.data, dtype or tensor.dtype, tensor.shape)

    def add_array(self, name: str, data: Array, dtype: str, shape: tuple[int, ...]) -> str:
        """C expression of `data` as an array of `dtype`, called after `name`."""
        key = f"{name} {dtype}"
        if key not in self._arrays:
            converted = np.ascontiguousarray(data).astype(dtype)
            if not np.array_equal(converted, data):
                raise ValueError(f"the values of {name!r} do not fit {dtype}")
            self._arrays[key] = self._constant(name, converted.reshape(-1), f"{list(shape)}", dtype)
        return self._arrays[key].expression

    def _constant(self, name: str, data: Array, shape: str, dtype: str) -> Constant:
        spelled = name if name not in {key.rsplit(" ", 1)[0] for key in self._arrays} else f"{name}_{dtype}"
        dims = _dims(data)
        # Short names such as gamma, exp or y0 belong to the C library.
        stem = spelled if "_" in identifier(spelled) else f"constant_{spelled}"
        return Constant(self._names[stem], ctype(dtype), dims, f"{name}, {dtype} {shape}", data)

    def all(self) -> list[Constant]:
        """Every array, in order of first use."""
        return list(self._arrays.values())

    def files(self) -> list[list[Constant]]:
        """The arrays grouped into source files of bounded size."""
        groups: list[list[Constant]] = [[]]
        size = 0
        for constant in self._arrays.values():
            if groups[-1] and size + constant.data.nbytes > _FILE_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(constant)
            size += constant.data.nbytes
        return groups


def _dims(data: Array) -> tuple[int, ...]:
    if data.dtype == np.int8 and data.size >= _STRING_SIZE:
        row = next(width for width in range(_ROW, 0, -1) if data.size % width == 0)
        if row >= _ROW // 2:
            return data.size // row, row
    return (data.size,)


_OCTAL = [f"\\{byte:03o}" for byte in range(256)]


def _text_rows(data: Array, width: int) -> Iterator[str]:
    rows = data.view(np.uint8).reshape(-1, width).tolist()
    for row in rows:
        yield f'"{"".join([_OCTAL[byte] for byte in row])}",'


def _number_lines(data: Array) -> Iterator[str]:
    values = [number(value) for value in data.tolist()]
    longest = max(map(len, values), default=1)
    per_line = max(1, _LINE // (longest + 2))
    # Full lines hold a power of two, so that a reader can count.
    per_line = 1 << (per_line.bit_length() - 1)
    for start in range(0, len(values), per_line):
        yield ", ".join([f"{value:>{longest}}" for value in values[start : start + per_line]]) + ","


def row_width() -> int:
    """Characters in a row of text, where the size allows it."""
    return _ROW
