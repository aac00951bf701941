"""Scratchpad addresses that change in time: what does not fit goes to external memory and comes back.

Operations are taken in order. A buffer gets a place, the first that is free, when an operation needs it. Where none is
free, the buffer whose next use is farthest leaves the bank, then the next, until there is room; it is spilled unless
external memory has it already. If that is not enough, because what the operation needs lies scattered, that leaves too
and comes back packed. A buffer that comes back is filled just before the operation that reads it, and is another
`Buffer` from then on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.allocate import Addresses, Region, buffers_of, in_place, place
from intaglio.backends.fpga.nodes import OUTPUT_BLOCK
from intaglio.backends.fpga.operations import Buffer, Fill, Operation, Slot, Spill


@dataclass(frozen=True)
class Paged:
    """Operations with spills and fills between them, their buffers' addresses, bytes of the spill area.

    `cut`: operations have parts, which read the same constants.
    """

    operations: list[Operation]
    addresses: Addresses
    spill_bytes: int
    cut: bool = True


def page(operations: Sequence[Operation], config: AcceleratorConfig) -> Paged | None:
    """Addresses for all buffers, with what does not fit spilled; None if the buffers of one operation do not fit."""
    least = least_words(operations, config)
    if least["A"] > config.a_words or least["X"] > config.x_words:
        return None
    pager = _Pager(operations, config)
    for index, operation in enumerate(operations):
        pager.run(index, operation)
    spill_bytes = _place_slots(pager.operations, config)
    return Paged(pager.operations, Addresses(config, pager.addresses, pager.most), spill_bytes)


def least_words(operations: Sequence[Operation], config: AcceleratorConfig) -> dict[str, int]:
    """Words of each bank that the operation with the largest buffers needs."""
    uses = _uses(operations)
    least = {"A": 0, "X": 0}
    for index, operation in enumerate(operations):
        over = _over(index, operation, uses)
        needed = [b for b in dict.fromkeys(buffers_of(operation)) if b is not over]
        for bank in least:
            words = sum(buffer.words(config) for buffer in needed if buffer.bank == bank)
            least[bank] = max(least[bank], words)
    return least


def _uses(operations: Sequence[Operation]) -> dict[Buffer, list[int]]:
    """For every buffer the operations that name it."""
    uses: dict[Buffer, list[int]] = {}
    for index, operation in enumerate(operations):
        for buffer in dict.fromkeys(buffers_of(operation)):
            uses.setdefault(buffer, []).append(index)
    return uses


def _over(index: int, operation: Operation, uses: Mapping[Buffer, Sequence[int]]) -> Buffer | None:
    """The result of operation `index`, if it takes its residual's place, which is not needed any more."""
    residual, out = in_place(operation)
    if residual is None or out is None:
        return None
    return out if uses[residual][-1] == uses[out][0] == index else None


@dataclass
class _State:
    """A buffer: where it lives (None: in no bank), its copy in external memory, whether that is out of date."""

    here: Buffer | None = None
    slot: Slot | None = None
    changed: bool = True


class _Pager:
    """`banks`: what lies in each, and at which word; `addresses`: of all buffers that `operations` name."""

    def __init__(self, operations: Sequence[Operation], config: AcceleratorConfig) -> None:
        self.config = config
        self.size = {"A": config.a_words, "X": config.x_words}
        self.banks: dict[str, dict[Buffer, int]] = {"A": {}, "X": {}}
        self.most = {"A": 0, "X": 0}
        self.operations: list[Operation] = []
        self.addresses: dict[Buffer, int] = {}
        self.states: dict[Buffer, _State] = {}
        self.uses = _uses(operations)
        for buffer in self.uses:
            self.states[buffer] = _State()

    def run(self, index: int, operation: Operation) -> None:
        """Bring an operation's buffers into the banks, and append it."""
        needed = list(dict.fromkeys(buffers_of(operation)))
        over = _over(index, operation, self.uses)
        if not self._bring_all(index, operation, [b for b in needed if b is not over]):
            for bank in self.banks.values():
                for buffer in list(bank):
                    self._leave(buffer, operation)
            packed = self._bring_all(index, operation, [b for b in needed if b is not over])
            assert packed
        if over is not None:
            self._replace(over, operation)
        known = {buffer: self.states[buffer].here for buffer in needed}
        self.operations.append(_renamed(operation, known))
        if operation.writes is not None:
            self.states[operation.writes].changed = True
        for buffer in needed:
            if self.uses[buffer][-1] == index:
                self.banks[buffer.bank].pop(buffer, None)

    def _bring_all(self, index: int, operation: Operation, needed: Sequence[Buffer]) -> bool:
        missing = [buffer for buffer in needed if self.states[buffer].here is None]
        missing.sort(key=lambda buffer: -buffer.words(self.config))
        return all(self._bring(index, operation, buffer, needed) for buffer in missing)

    def _replace(self, out: Buffer, operation: Operation) -> None:
        residual, _ = in_place(operation)
        assert residual is not None
        start = self.banks["X"].pop(residual)
        offset = (out.low - residual.low) // self.config.rows * out.stride(self.config)
        self._put(out, start + offset)

    def _put(self, buffer: Buffer, address: int) -> None:
        state, bank = self.states[buffer], buffer.bank
        state.here = replace(buffer)
        self.banks[bank][buffer] = self.addresses[state.here] = address
        self.most[bank] = max(self.most[bank], address + buffer.words(self.config))

    def _bring(self, index: int, operation: Operation, buffer: Buffer, needed: Sequence[Buffer]) -> bool:
        """Give a buffer a place, and its contents if it had any; False if there is no room."""
        bank, words, state = self.banks[buffer.bank], buffer.words(self.config), self.states[buffer]
        others = sorted((b for b in bank if b not in needed), key=lambda b: self._next_use(b, index))
        leaving: list[Buffer] = []
        while (address := self._gap(buffer.bank, words, leaving)) is None:
            if not others:
                return False
            leaving.append(others.pop())
        for other in leaving:
            if bank[other] < address + words and address < bank[other] + other.words(self.config):
                self._leave(other, operation)
        self._put(buffer, address)
        if state.slot is not None:
            assert state.here is not None
            self.operations.append(Fill(operation.step, state.here, state.slot))
            state.changed = False
        return True

    def _next_use(self, buffer: Buffer, index: int) -> int:
        uses = self.uses[buffer]
        return uses[bisect_right(uses, index)]

    def _gap(self, bank: str, words: int, leaving: Sequence[Buffer]) -> int | None:
        """The first address at which so many words are free."""
        address = 0
        staying = ((start, b) for b, start in self.banks[bank].items() if b not in leaving)
        for start, buffer in sorted(staying, key=lambda pair: pair[0]):
            if address + words <= start:
                break
            address = max(address, start + buffer.words(self.config))
        return address if address + words <= self.size[bank] else None

    def _leave(self, buffer: Buffer, operation: Operation) -> None:
        state = self.states[buffer]
        assert state.here is not None
        if state.slot is None:
            state.slot = Slot(buffer.words(self.config))
        if state.changed:
            self.operations.append(Spill(operation.step, state.here, state.slot))
        state.here = None
        del self.banks[buffer.bank][buffer]


def _renamed(operation: Operation, known: dict[Buffer, Buffer | None]) -> Operation:
    """The operation with other buffers."""

    def other(value: Any) -> Any:
        if isinstance(value, Buffer):
            return known[value]
        return tuple(map(other, value)) if isinstance(value, tuple) else value

    changed = {entry.name: other(getattr(operation, entry.name)) for entry in fields(operation)}
    return replace(operation, **changed)


def _place_slots(operations: Sequence[Operation], config: AcceleratorConfig) -> int:
    """Give slots their offsets, first fit over the time between first spill and last fill; bytes needed."""
    regions: dict[Slot, Region] = {}
    for index, operation in enumerate(operations):
        if isinstance(operation, (Spill, Fill)):
            slot = operation.slot
            blocks = -(-slot.words * config.word_bytes // OUTPUT_BLOCK)
            regions.setdefault(slot, Region("", blocks, index, index)).last = index
    blocks = place(list(regions.values()))
    for slot, region in regions.items():
        slot.offset = region.address * OUTPUT_BLOCK
    return blocks * OUTPUT_BLOCK
