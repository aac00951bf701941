"""How a model is brought into the scratchpads: whole if it fits, else in pieces that are spilled.

A cut is so many chunks of rows (cut.py) and so many heads of attention at a time. Of all cuts that fit, the one of the
fewest cycles is taken, by a rough count: for each product the longer of its steps and of loading its weights, counted
again for every chunk; the beats of spills and fills; and a constant for every operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.allocate import allocate, buffers_of
from intaglio.backends.fpga.cut import cut
from intaglio.backends.fpga.emit import copies_per_head
from intaglio.backends.fpga.graph import Graph
from intaglio.backends.fpga.layout import entries
from intaglio.backends.fpga.lower import Known, lower
from intaglio.backends.fpga.operations import Attention, Experts, Fill, Gemm, Operation, Spill
from intaglio.backends.fpga.spill import Paged, least_words, page
from intaglio.errors import UnsupportedError

MOST_COPIES = 255
"""Descriptors that copy a head's keys and values, at most: the step of a wait has 8 bits."""


_START = 100
"""Cycles from the start of an operation to its first results."""


def fit(graph: Graph, config: AcceleratorConfig) -> Paged:
    """Operations and addresses. Raises UnsupportedError where they do not fit, saying what is missing."""
    known: Known = {}
    operations = lower(graph, config, known=known)
    addresses = allocate(operations, config)
    if addresses.words["A"] <= config.a_words and addresses.words["X"] <= config.x_words:
        return Paged(operations, addresses, 0, cut=False)
    found = _best(graph, config, operations, known)
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


def _best(graph: Graph, config: AcceleratorConfig, whole: Sequence[Operation], known: Known) -> Paged | None:
    """The cut of the fewest cycles: chunks become smaller as long as their products alone leave room for gains."""
    best, least = None, 0
    heads = max((op.heads for op in whole if isinstance(op, Attention)), default=1)
    counts = [n for n in range(heads, 0, -1) if heads % n == 0]
    lowered: dict[int, list[Operation]] = {}
    for rows in _chunks(whole, config):
        for count in counts:
            if count not in lowered:
                lowered[count] = lower(graph, config, count, known)
            operations = cut(lowered[count], config, rows) if rows else lowered[count]
            if best is not None and _cycles(operations, config) >= least:
                break
            paged = page(operations, config) if _counted(operations, config) else None
            if paged is None:
                continue
            cycles = _cycles(paged.operations, config)
            if best is not None and cycles >= least:
                break
            best, least = paged, cycles
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


def _cycles(operations: Sequence[Operation], config: AcceleratorConfig) -> int:
    """A rough count, for comparison: what does not depend on the cut is left out."""
    return sum(_START + _busy(op, config) for op in operations)


def _busy(op: Operation, config: AcceleratorConfig) -> int:
    """Cycles of a product or of its weights, of the weights of all experts; beats of spills and fills."""
    load = config.cols // config.weight_ports
    match op:
        case Gemm():
            return max(-(-op.rows // config.rows), load) * entries(op.weight.shape, config)
        case Experts():
            return load * sum(entries(of.weight.shape, config) for of in (*op.first, *op.second))
        case Spill() | Fill():
            return op.slot.words * config.rows
        case _:
            return 0
