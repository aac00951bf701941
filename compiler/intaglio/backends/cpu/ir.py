"""A small layer over TVM's TIR builder: kernels over raw pointers, with a plain C interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812 (TVM's own name for it)

# TVM ships no type information: expressions, buffers and functions are opaque here.
Expr = Any
Buffer = Any
PrimFunc = Any


def const(value: int, dtype: str) -> Expr:
    """A constant."""
    return tirx.const(value, dtype)


def splat(value: Expr, lanes: int) -> Expr:
    """A scalar copied to every lane."""
    return tirx.Broadcast(value, lanes)


def ramp(start: Expr, lanes: int) -> Expr:
    """Indices start .. start + lanes - 1."""
    return start if lanes == 1 else tirx.Ramp(start, 1, lanes)


def load(buffer: Buffer, index: Expr, lanes: int = 1) -> Expr:
    """`lanes` consecutive elements, evaluated here and once."""
    return T.bind(buffer[ramp(index, lanes)])


def store(buffer: Buffer, index: Expr, value: Expr, lanes: int = 1) -> None:
    """Write `lanes` consecutive elements."""
    T.buffer_store(buffer, value, [ramp(index, lanes)])


def bind(value: Expr) -> Expr:
    """Evaluate once: a name for an expression that is used several times."""
    return T.bind(value)


def cast(value: Expr, dtype: str) -> Expr:
    """Convert, wrapping where the type is narrower."""
    return tirx.Cast(dtype, value)


def bits(value: Expr, dtype: str) -> Expr:
    """The same bits read as another type."""
    return tirx.reinterpret(dtype, value)


def loop(begin: Expr, end: Expr) -> Any:
    """A loop over ``begin <= i < end``; the block gets i."""
    return T.serial(begin, end)


def local(size: int, dtype: str) -> Buffer:
    """A few registers; indices must be constants for LLVM to keep them out of memory."""
    return T.alloc_buffer((size,), dtype, scope="local", layout=None)


class Cell:
    """One mutable scalar or vector."""

    def __init__(self, value: Expr, dtype: str, lanes: int = 1) -> None:
        self._buffer = local(lanes, dtype)
        self._lanes = lanes
        self.set(value)

    def get(self) -> Expr:
        return T.bind(self._buffer[ramp(0, self._lanes)])

    def set(self, value: Expr) -> None:
        store(self._buffer, 0, value, self._lanes)

    def reduced(self, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """All lanes combined into one scalar."""
        value = self.get()
        lanes = self._lanes
        while lanes > 1:
            lanes //= 2
            low, high = (
                tirx.Shuffle([value], [const(i + at, "int32") for i in range(lanes)]) for at in (0, lanes)
            )
            value = T.bind(combine(low, high))
        return value


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """A block that runs where the condition holds."""
    with T.If(condition), T.Then():
        yield


def minimum(dtype: str) -> int:
    """The least value of an integer type."""
    return int(np.iinfo(dtype).min)


def maximum(dtype: str) -> int:
    """The greatest value of an integer type."""
    return int(np.iinfo(dtype).max)


class Body:
    """The parameters of the kernel under construction: its buffers by name, and the items `begin` to `end`."""

    begin: Expr
    end: Expr
    func: PrimFunc

    def __init__(self, buffers: Mapping[str, tuple[str, int]]) -> None:
        data = {name: T.arg(name, T.ptr(dtype)) for name, (dtype, _) in buffers.items()}
        self.begin, self.end = T.arg("begin", T.int32()), T.arg("end", T.int32())
        self._buffers = {
            name: T.decl_buffer((max(size, 1),), dtype, data=data[name], layout=None)
            for name, (dtype, size) in buffers.items()
        }

    def __getitem__(self, name: str) -> Buffer:
        return self._buffers[name]

    def buffers(self, *names: str) -> list[Buffer]:
        return [self._buffers[name] for name in names]


@contextmanager
def kernel(symbol: str, **buffers: tuple[str, int]) -> Iterator[Body]:
    """Build the C function ``void symbol(dtype *name, ..., int32 begin, int32 end)``.

    `buffers` gives the dtype and the number of elements behind each pointer. `func` of the result holds the
    function after the block.
    """
    with IRBuilder() as ib, T.prim_func(s_tir=True):
        T.func_name(symbol)
        # Calling convention 1 and a global symbol: LLVM sees pointers and integers, no packed API around them.
        T.func_attr({"tirx.noalias": True, "calling_conv": 1})
        body = Body(buffers)
        yield body
    body.func = ib.get().with_attr("global_symbol", symbol)


@dataclass(frozen=True)
class Kernel:
    """A function that is not built yet: equal (`make`, `args`) mean one shared function in the library."""

    make: Callable[..., PrimFunc]
    args: tuple[Any, ...]

    @property
    def kind(self) -> str:
        return self.make.__name__.removesuffix("_kernel")
