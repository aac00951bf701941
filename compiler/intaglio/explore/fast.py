"""Cycles of a configuration in about a millisecond: the array's jobs one after the other, and what each waits for.

Of the cycle model it keeps the steps of the array, the ring of weights, LayerNorm as a pipeline of row tiles, the first
copies of keys and values, and the loads at the beginning; it drops bursts, contention for banks, and the sequencer. It
is for ranking; `docs/models.md` has its measured error. The cycle model then predicts what counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.emit import SHARE
from intaglio.explore.shapes import Attend, Mixture, Norm, Picture, Product, Rows, Shape
from intaglio.simulation.frame import MemoryModel

PIPELINE = 45
"""Cycles from a row tile's last step to its results: array, drain, requantization."""

NORM = 113
"""From a row tile's last channel in LayerNorm to its result, beside its channels twice."""

NORM_LEAST = 102
"""Cycles a row tile at least."""

SOFTMAX = 27
"""Cycles a row tile at least: the division."""

TABLE = 256
"""Cycles in which a table's entries are written."""

SETUP = 20
"""Of a load: check, command, first burst."""


@dataclass
class Job:
    """What the array did last for an operation: when its first row tile's results were there, and its last one's."""

    first: float
    last: float


class Fast:
    """One configuration. `array`, `io`, `loads`: when unit MM, IO and DM are free."""

    def __init__(self, config: AcceleratorConfig, memory: MemoryModel) -> None:
        self.config = config
        port, burst = config.depth, config.burst * config.depth
        most = config.outstanding * burst / (memory.latency + config.burst)
        self.weight_rate = min(memory.bytes_per_cycle, config.weight_ports * min(port, most))
        self.io_rate = min(port, most, memory.bytes_per_cycle / (config.weight_ports + 1))
        self.latency = memory.latency + SETUP
        self.array = self.io = self.loads = 0.0
        self.ring: deque[tuple[int, int, float]] = deque()
        self.next = 0
        self.done: dict[int, Job] = {}
        self.image = 0.0

    def cycles(self, shapes: Sequence[Shape]) -> float:
        """Of one frame."""
        for index, shape in enumerate(shapes):
            match shape:
                case Product():
                    self._product(index, shape)
                case Attend():
                    self._attention(index, shape)
                case Norm():
                    self._norm(index, shape)
                case Picture():
                    self.io += shape.channels * (TABLE + self.latency)
                    self.io += self.latency + shape.bytes / min(self.config.depth, self.io_rate * 2)
                    self.image = self.io
                case Rows():
                    self._rows(shape)
                case Mixture():
                    self._mixture(index, shape)
        return max(self.array + PIPELINE, self.io)

    def _rows(self, shape: Rows) -> None:
        size = self.config.depth if shape.stored else self.config.word_bytes
        begin = max(self.io, self.array + PIPELINE if shape.stored else 0.0)
        self.io = begin + self.latency + shape.words * size / self.io_rate

    def _take(self, entries: int) -> float:
        """Give entries of the weight buffer a place; when those that had it are done with it."""
        if self.next + entries > self.config.weight_entries:
            self.next = 0
        first, last = self.next, self.next + entries
        self.next = last
        free = 0.0
        keep: deque[tuple[int, int, float]] = deque()
        for low, high, end in self.ring:
            if low < last and first < high:
                free = max(free, end)
            else:
                keep.append((low, high, end))
        self.ring = keep
        return free

    def _blocks(self, channels: int, steps: int) -> list[int]:
        """Column tiles of every block, as the compiler cuts them."""
        config = self.config
        tiles = -(-channels // config.cols)
        most = min(
            int(config.weight_entries * SHARE) // steps, config.param_groups // 3 // config.tile_groups
        )
        count = -(-tiles // max(most, 1))
        return [tiles * (i + 1) // count - tiles * i // count for i in range(count)]

    def _product(self, index: int, shape: Product) -> None:
        self.io += (self.latency + TABLE) * shape.table
        source = self.done.get(shape.reads)
        if source is None and self.image:
            source = Job(0.0, self.image)
        self.done[index] = self._matrix(shape.rows, shape.channels, shape.steps, source)

    def _matrix(self, tokens: int, channels: int, steps: int, source: Job | None) -> Job:
        """A matrix product, block by block."""
        config = self.config
        rows, left = -(-tokens // config.rows), channels // config.group
        job = Job(0.0, 0.0)
        for tiles in self._blocks(channels, steps):
            entries, groups = tiles * steps, min(tiles * config.tile_groups, left)
            left -= groups
            self.loads = (
                max(self.loads, self._take(entries)) + entries * config.entry_bytes / self.weight_rate
            )
            self.io += self.latency + groups * 4 * config.depth / self.io_rate
            tail = groups - (tiles - 1) * config.tile_groups
            each = (tiles - 1) * max(steps, config.tile_groups) + max(steps, tail)
            start, end = max(self.array, self.loads + self.latency, self.io), 0.0
            if source is not None:
                start, end = max(start, source.first), source.last + each
            self.array = max(start + rows * each, end)
            self.ring.append((self.next - entries, self.next, self.array))
            first = max(self.array - (rows - 1) * each, start + each)
            job = Job(first + PIPELINE, self.array + PIPELINE)
        return job

    def _mixture(self, index: int, shape: Mixture) -> None:
        """Weights are loaded after the routing; rows are moved while the array does not read."""
        logits = self.done.get(shape.logits, Job(0.0, self.array))
        self.io += 2 * (self.latency + TABLE)
        routed = logits.last + shape.rows * (shape.experts + 1) + shape.experts + PIPELINE
        self.loads, self.array = max(self.loads, routed), max(self.array, routed)
        for tokens in filter(None, shape.tokens):
            self.array += 2 * tokens * shape.words
            self._matrix(tokens, shape.hidden, shape.steps[0], None)
            self.array += PIPELINE
            self._matrix(tokens, shape.channels, shape.steps[1], None)
        rows = -(-shape.rows // self.config.rows)
        self.array += PIPELINE + rows * shape.k * (shape.channels // self.config.group)
        self.done[index] = Job(self.array + PIPELINE, self.array + PIPELINE)

    def _norm(self, index: int, shape: Norm) -> None:
        rows = -(-shape.rows // self.config.rows)
        source = self.done.get(shape.reads, Job(0.0, 0.0))
        each = max(shape.channels, NORM_LEAST)
        self.io += self.latency + 16 * shape.channels / self.io_rate
        first = max(source.first, self.io) + 2 * shape.channels + NORM
        last = max(first + (rows - 1) * each, source.last + 2 * shape.channels + NORM)
        self.done[index] = Job(first, last)

    def _attention(self, index: int, shape: Attend) -> None:
        config = self.config
        rows, key_rows = -(-shape.rows // config.rows), -(-shape.keys // config.rows)
        scores, values = shape.entries(config)
        pair = scores + values
        self._take(min(shape.heads, 2) * pair)
        self.io += self.latency + TABLE
        qk = max(scores, -(-shape.keys // config.group))
        av = max(2 * values, 2 * shape.v_words)
        each = max(qk + av, 2 * -(-shape.keys // config.depth) + 1, SOFTMAX)
        copy = key_rows * (shape.qk_words + shape.v_words)
        start = max(self.array + PIPELINE + copy, self.io)
        late = max(copy - rows * 2 * values, 0) * (shape.heads - 1)
        filling = 2 * -(-shape.keys // config.depth) + SOFTMAX + PIPELINE
        self.array = start + shape.heads * rows * each + late + (filling if rows < 4 else 0)
        self.ring.append((self.next - min(shape.heads, 2) * pair, self.next, self.array))
        self.done[index] = Job(self.array - (rows - 1) * each + PIPELINE, self.array + PIPELINE)


def cycles(shapes: Sequence[Shape], config: AcceleratorConfig, memory: MemoryModel) -> float:
    """Cycles of one frame, roughly."""
    return Fast(config, memory).cycles(shapes)
