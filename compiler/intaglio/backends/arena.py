"""Static memory plan: every activation's place in one workspace, decided at compile time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from intaglio.program import Program, Step, Tensor


@dataclass(frozen=True)
class Arena:
    """Byte offset of every activation in the workspace, and the workspace's size in bytes.

    The program's input and output are the caller's buffers and have no offset.
    """

    offsets: dict[str, int]
    size: int


@dataclass(frozen=True)
class _Block:
    """Bytes which one value and its reshaped aliases share from step `first` to step `last`, both included."""

    names: tuple[str, ...]
    first: int
    last: int
    size: int

    def meets(self, other: _Block) -> bool:
        return self.first <= other.last and other.first <= self.last


def plan(program: Program, *, alignment: int = 64, alias_reshape: bool = True) -> Arena:
    """Place the activations of `program` so that no two which live at the same time overlap.

    Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020): the
    largest block first, each into the smallest gap that holds it. With `alias_reshape` a reshape's output is its
    input's memory wherever neither is the caller's. Offsets and size are multiples of `alignment`.
    """
    if alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"alignment must be a power of two, not {alignment!r}")
    blocks = _blocks(program, alignment, alias_reshape)
    order = sorted(blocks, key=lambda block: (-block.size, block.first))
    placed: list[tuple[int, _Block]] = []
    for block in order:
        placed.append((_best_fit(block, placed), block))
    offsets = {name: offset for offset, block in placed for name in block.names}
    in_order = {tensor.name: offsets[tensor.name] for tensor in program.activations if tensor.name in offsets}
    return Arena(in_order, max((offset + block.size for offset, block in placed), default=0))


def is_alias(arena: Arena, step: Step) -> bool:
    """Whether `step` is a reshape that costs nothing: its output is its input's memory."""
    if step.op != "reshape":
        return False
    place = arena.offsets.get(step.output)
    return place is not None and place == arena.offsets.get(step.inputs[0])


def byte_size(tensor: Tensor) -> int:
    """Bytes of a dense tensor."""
    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


def verify(program: Program, arena: Arena) -> None:
    """Prove that `arena` is sound by executing the program on intervals of bytes.

    Raises `ValueError` where a step would read bytes that another step has overwritten, write over its own input,
    or leave the workspace.
    """
    whole: dict[str, range] = {}
    for step in program.steps:
        for name in step.inputs:
            if name in arena.offsets and name not in whole:
                raise ValueError(f"step {step.name!r} reads {name!r} after its memory was reused")
        if step.output in arena.offsets:
            _write(program, arena, step, whole)
        elif step.output != program.output:
            raise ValueError(f"{step.output!r} has no place in the arena")


def _write(program: Program, arena: Arena, step: Step, whole: dict[str, range]) -> None:
    """Account for the output of `step`: whatever it overwrites is no longer whole."""
    start = arena.offsets[step.output]
    bytes_ = range(start, start + byte_size(program.tensors[step.output]))
    if bytes_.start < 0 or bytes_.stop > arena.size:
        raise ValueError(f"{step.output!r} leaves the workspace of {arena.size} bytes")
    lost = [name for name, other in whole.items() if _overlap(bytes_, other)]
    if is_alias(arena, step):
        source = whole[step.inputs[0]]
        lost = [name for name in lost if whole[name] != source or bytes_ != source]
    for name in lost:
        if name in step.inputs:
            raise ValueError(f"step {step.name!r} writes over its input {name!r}")
        del whole[name]
    whole[step.output] = bytes_


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


def _blocks(program: Program, alignment: int, alias_reshape: bool) -> list[_Block]:
    callers = {program.input, program.output}
    last_use = {name: index for index, step in enumerate(program.steps) for name in step.inputs}
    groups: dict[str, list[tuple[str, int]]] = {}
    home: dict[str, str] = {}
    for index, step in enumerate(program.steps):
        if step.output in callers:
            continue
        source = step.inputs[0] if step.inputs else ""
        aliased = alias_reshape and step.op == "reshape" and source in home
        home[step.output] = home[source] if aliased else step.output
        groups.setdefault(home[step.output], []).append((step.output, index))
    return [_block(program, members, last_use, alignment) for members in groups.values()]


def _block(
    program: Program, members: Sequence[tuple[str, int]], last_use: dict[str, int], alignment: int
) -> _Block:
    return _Block(
        names=tuple(name for name, _ in members),
        first=min(index for _, index in members),
        last=max(last_use.get(name, index) for name, index in members),
        size=_round_up(byte_size(program.tensors[members[0][0]]), alignment),
    )


def _round_up(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _best_fit(block: _Block, placed: Iterable[tuple[int, _Block]]) -> int:
    """The start of the smallest gap between the blocks alive with `block` that holds it, or the end."""
    spans = sorted((offset, offset + other.size) for offset, other in placed if other.meets(block))
    best: tuple[int, int] | None = None
    end = 0
    for start, stop in spans:
        gap = start - end
        if gap >= block.size and (best is None or gap < best[0]):
            best = (gap, end)
        end = max(end, stop)
    return end if best is None else best[1]
