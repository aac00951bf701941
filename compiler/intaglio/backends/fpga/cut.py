"""Operations cut into chunks of row tiles, so that less lives at a time: all but keys and values is row by row.

What is row by row runs chunk after chunk, each through all operations up to the next attention, which needs keys and
values of every chunk. The image is not cut: what reads it comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.mixture import resized
from intaglio.backends.fpga.operations import (
    Attention,
    Buffer,
    Experts,
    Gemm,
    Image,
    LayerNorm,
    Operation,
    Preload,
    Store,
)


def cut(operations: Sequence[Operation], config: AcceleratorConfig, rows: int) -> list[Operation]:
    """The same in chunks of `rows` rows, a multiple of the configuration's `cols`."""
    cutter = _Cutter(config, rows)
    levels = _levels(operations)
    parts = [
        (levels[index], chunk, index, part)
        for index, operation in enumerate(operations)
        for chunk, part in cutter.parts(operation)
    ]
    parts.sort(key=lambda part: part[:3])
    return [part for *_, part in parts]


def _levels(operations: Sequence[Operation]) -> list[int]:
    """Of every operation, how often all chunks must be done before it: after the image, and after keys and values."""
    ready: dict[Buffer, int] = {}
    levels: list[int] = []
    for operation in operations:
        level = max((ready.get(buffer, 0) for buffer in operation.reads), default=0)
        if isinstance(operation, Attention):
            level = max(level, *(ready[buffer] + 1 for buffer in (*operation.k, *operation.v)))
        levels.append(level)
        if operation.writes:
            ready[operation.writes] = level + isinstance(operation, Image)
    return [_with_reader(operations, levels, index) for index in range(len(levels))]


def _with_reader(operations: Sequence[Operation], levels: Sequence[int], index: int) -> int:
    """The level of an operation: that of constants is the level of what comes next with their buffer."""
    operation = operations[index]
    if not isinstance(operation, Preload):
        return levels[index]
    for level, later in zip(levels[index + 1 :], operations[index + 1 :], strict=True):
        if not isinstance(later, Preload) and operation.out in (*later.reads, later.writes):
            return level
    return levels[index]


class _Cutter:
    """`pieces`: of every buffer, what lies in each chunk."""

    def __init__(self, config: AcceleratorConfig, rows: int) -> None:
        self.config, self.rows = config, rows
        self.pieces: dict[tuple[Buffer, int], Buffer] = {}
        self.images: set[Buffer] = set()

    def parts(self, operation: Operation) -> Iterator[tuple[int, Operation]]:
        """Chunks and their parts of an operation."""
        match operation:
            case Image():
                self.images.add(operation.out)
                yield 0, operation
            case Preload():
                yield from self._preload(operation)
            case Store():
                chunk = operation.row // self.rows
                yield chunk, replace(operation, x=self._piece(operation.x, chunk))
            case Gemm():
                yield from self._gemm(operation)
            case Attention() | LayerNorm() | Experts():
                for chunk in self._chunks(operation.out):
                    yield chunk, self._row_by_row(operation, chunk)
            case _:
                raise TypeError(f"it is not known how {type(operation).__name__} is cut.")

    def _chunks(self, buffer: Buffer) -> range:
        return range(buffer.low // self.rows, -(-buffer.high // self.rows))

    def _piece(self, buffer: Buffer, chunk: int) -> Buffer:
        if buffer in self.images:
            return buffer
        if (buffer, chunk) not in self.pieces:
            low, high = max(buffer.low, chunk * self.rows), min(buffer.high, (chunk + 1) * self.rows)
            self.pieces[buffer, chunk] = replace(buffer, low=low, high=high)
        return self.pieces[buffer, chunk]

    def _keys(self, buffers: Sequence[Buffer], keys: int) -> tuple[Buffer, ...]:
        """Pieces that hold the first `keys` rows."""
        pieces = (self._piece(buffer, chunk) for buffer in buffers for chunk in self._chunks(buffer))
        return tuple(piece for piece in pieces if piece.low < keys)

    def _optional(self, buffer: Buffer | None, chunk: int) -> Buffer | None:
        return None if buffer is None else self._piece(buffer, chunk)

    def _preload(self, op: Preload) -> Iterator[tuple[int, Operation]]:
        high = op.low + len(op.values)
        for chunk in range(op.low // self.rows, -(-high // self.rows)):
            low = max(op.low, chunk * self.rows)
            values = op.values[low - op.low : (chunk + 1) * self.rows - op.low]
            yield chunk, replace(op, out=self._piece(op.out, chunk), low=low, values=values)

    def _gemm(self, op: Gemm) -> Iterator[tuple[int, Operation]]:
        high = op.out.low + op.rows
        for chunk in range(op.out.low // self.rows, -(-high // self.rows)):
            out = self._piece(op.out, chunk)
            yield (
                chunk,
                replace(
                    op,
                    a=self._piece(op.a, chunk),
                    out=out,
                    rows=min(high, out.high) - out.low,
                    residual=self._optional(op.residual, chunk),
                ),
            )

    def _row_by_row(self, op: Attention | LayerNorm | Experts, chunk: int) -> Operation:
        out = self._piece(op.out, chunk)
        if isinstance(op, LayerNorm):
            return replace(op, x=self._piece(op.x, chunk), out=out)
        if isinstance(op, Attention):
            k, v = self._keys(op.k, op.keys), self._keys(op.v, op.keys)
            return replace(op, q=self._piece(op.q, chunk), k=k, v=v, out=out)
        x, logits = self._piece(op.x, chunk), self._piece(op.logits, chunk)
        residual = self._optional(op.residual, chunk)
        return resized(replace(op, x=x, logits=logits, out=out, residual=residual), self.config)
