"""How a model is brought into the scratchpads: whole if it fits, else in pieces that are spilled.

A cut is so many chunks of rows (cut.py) and so many heads of attention at a time. Of all cuts that fit, the one is
taken for which the fewest beats are moved from and to external memory; with more chunks, weights are loaded more often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.allocate import allocate, buffers_of
from intaglio.backends.fpga.cut import cut
from intaglio.backends.fpga.emit import copies_per_head
from intaglio.backends.fpga.graph import Graph
from intaglio.backends.fpga.lower import lower
from intaglio.backends.fpga.operations import Attention, Experts, Fill, Gemm, Operation, Spill
from intaglio.backends.fpga.spill import Paged, least_words, page
from intaglio.errors import UnsupportedError

MOST_COPIES = 255
"""Descriptors that copy a head's keys and values, at most: the step of a wait has 8 bits."""


def fit(graph: Graph, config: AcceleratorConfig) -> Paged:
    """Operations and addresses. Raises UnsupportedError where they do not fit, saying what is missing."""
    operations = lower(graph, config)
    addresses = allocate(operations, config)
    if addresses.words["A"] <= config.a_words and addresses.words["X"] <= config.x_words:
        return Paged(operations, addresses, 0)
    found = _best(graph, config, operations)
    if found is None:
        raise _refusal(graph, config, addresses.words)
    return found


def _refusal(graph: Graph, config: AcceleratorConfig, whole: Mapping[str, int]) -> UnsupportedError:
    """What the finest cut lacks."""
    least = least_words(cut(lower(graph, config, 1), config, config.cols), config)
    bank, key = ("A", "a_words") if least["A"] > config.a_words else ("X", "x_words")
    return UnsupportedError(
        f"even spilled to external memory, the model's activations need {least[bank]} words of scratchpad bank {bank} "
        f"at a time, the configuration has {getattr(config, key)}; raise {key} in the configuration to at least "
        f"{least[bank]}, or to {whole[bank]} to spill none."
    )


def _best(graph: Graph, config: AcceleratorConfig, whole: Sequence[Operation]) -> Paged | None:
    """The cut of the least traffic."""
    best, least = None, 0
    heads = max((op.heads for op in whole if isinstance(op, Attention)), default=1)
    counts = [n for n in range(heads, 0, -1) if heads % n == 0]
    lowered: dict[int, list[Operation]] = {}
    for rows in _chunks(whole, config):
        for count in counts:
            if count not in lowered:
                lowered[count] = lower(graph, config, count)
            operations = cut(lowered[count], config, rows) if rows else lowered[count]
            loads = sum(_weight_beats(op, config) for op in operations)
            if best is not None and loads >= least:
                return best
            paged = page(operations, config) if _counted(operations, config) else None
            if paged is None:
                continue
            traffic = loads + sum(_spill_beats(op, config) for op in paged.operations)
            if best is None or traffic < least:
                best, least = paged, traffic
            break
    return best


def _chunks(operations: Sequence[Operation], config: AcceleratorConfig) -> Iterator[int]:
    """Rows of a chunk, largest first; 0: not cut. Chunks hold whole column tiles of keys."""
    rows = max((buffer.high for op in operations for buffer in buffers_of(op)), default=0)
    tiles = -(-rows // config.cols)
    yield 0
    last = tiles
    for count in range(2, tiles + 1):
        if (size := -(-tiles // count)) < last:
            last = size
            yield size * config.cols


def _counted(operations: Sequence[Operation], config: AcceleratorConfig) -> bool:
    """Whether every head's copies can be counted."""
    attentions = (op for op in operations if isinstance(op, Attention) and op.heads > 1)
    return all(copies_per_head(op, config) <= MOST_COPIES for op in attentions)


def _weight_beats(operation: Operation, config: AcceleratorConfig) -> int:
    """Beats of weights that an operation loads on every weight port; of a mixture of experts those of all experts."""
    sizes = []
    if isinstance(operation, Gemm):
        sizes = [operation.weight.shape]
    elif isinstance(operation, Experts):
        sizes = [of.weight.shape for of in (*operation.first, *operation.second)]
    beats = sum(
        -(-channels // config.cols) * config.cols * depth // config.depth for channels, depth in sizes
    )
    return beats // config.weight_ports


def _spill_beats(operation: Operation, config: AcceleratorConfig) -> int:
    """Beats that the I/O port moves."""
    return operation.slot.words * config.rows if isinstance(operation, (Spill, Fill)) else 0
