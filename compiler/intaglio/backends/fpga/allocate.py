"""Scratchpad addresses: first fit over the time that a buffer lives; a residual's result takes the residual's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.operations import Buffer, Experts, Gemm, Operation


@dataclass(eq=False)
class Region:
    """Words of one memory that buffers share, and the operations (by index) between which they live."""

    bank: str
    words: int
    first: int
    last: int
    address: int = 0


@dataclass(frozen=True)
class Addresses:
    """The first word of every buffer's first row tile, and what each bank needs."""

    config: AcceleratorConfig
    first: dict[Buffer, int]
    words: dict[str, int]

    def of(self, buffer: Buffer, row: int | None = None) -> int:
        """Word address of the row tile that holds `row` (default: the buffer's first)."""
        tile = 0 if row is None else (row - buffer.low) // self.config.rows
        return self.first[buffer] + tile * buffer.stride(self.config)


def allocate(operations: Sequence[Operation], config: AcceleratorConfig) -> Addresses:
    """Addresses in banks A and X, which may exceed the configuration's."""
    regions, places = _regions(operations, config)
    words = {bank: place([r for r in regions if r.bank == bank]) for bank in "AX"}
    return Addresses(config, {b: r.address + offset for b, (r, offset) in places.items()}, words)


def _regions(
    operations: Sequence[Operation], config: AcceleratorConfig
) -> tuple[list[Region], dict[Buffer, tuple[Region, int]]]:
    """Regions in order of their first use, and every buffer's region and offset."""
    last = {b: i for i, op in enumerate(operations) for b in buffers_of(op)}
    places: dict[Buffer, tuple[Region, int]] = {}
    regions: list[Region] = []
    for index, operation in enumerate(operations):
        for buffer in buffers_of(operation):
            if buffer not in places:
                places[buffer] = _region(operation, buffer, places, config, index)
            region, _ = places[buffer]
            region.last = max(region.last, last[buffer])
            if region not in regions:
                regions.append(region)
    return regions, places


def buffers_of(operation: Operation) -> list[Buffer]:
    """What an operation reads, then what it writes."""
    return [*operation.reads, *([operation.writes] if operation.writes else [])]


def _region(
    operation: Operation,
    buffer: Buffer,
    places: dict[Buffer, tuple[Region, int]],
    config: AcceleratorConfig,
    index: int,
) -> tuple[Region, int]:
    residual, _ = in_place(operation)
    if residual is not None and buffer is operation.writes and residual in places:
        region, offset = places[residual]
        if region.last == index:
            return region, offset + (buffer.low - residual.low) // config.rows * buffer.stride(config)
    return Region(buffer.bank, buffer.words(config), index, index), 0


def in_place(operation: Operation) -> tuple[Buffer | None, Buffer | None]:
    """Residual and result of an operation where the one may take the other's place, else None and None."""
    residual = operation.residual if isinstance(operation, (Gemm, Experts)) else None
    out = operation.writes
    if residual is None or out is None or _shape(residual) != _shape(out) or residual is out:
        return None, None
    return residual, out


def _shape(buffer: Buffer) -> tuple[str, bool, int]:
    return buffer.bank, buffer.wide, len(buffer.columns)


def place(regions: list[Region]) -> int:
    """First fit in order of first use; returns the words needed."""
    needed = 0
    for index, region in enumerate(regions):
        busy = sorted(
            (other.address, other.address + other.words)
            for other in regions[:index]
            if other.last >= region.first
        )
        for start, end in busy:
            if region.address + region.words <= start:
                break
            region.address = max(region.address, end)
        needed = max(needed, region.address + region.words)
    return needed
