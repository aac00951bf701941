"""Producers -> operations, backwards: only the columns and row tiles that something reads are computed."""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.support import OTHER_TARGET
from intaglio.backends.fpga import lanes
from intaglio.backends.fpga.graph import (
    Attend,
    Constants,
    Graph,
    Ints,
    Mixture,
    Norm,
    Operand,
    Producer,
    Product,
)
from intaglio.backends.fpga.mixture import experts
from intaglio.backends.fpga.operations import (
    CONSTANT,
    PAD,
    Attention,
    Buffer,
    Gemm,
    Image,
    LayerNorm,
    Operation,
    Preload,
    Store,
    pad_columns,
)
from intaglio.backends.fpga.refusal import refusal
from intaglio.program import Array, Step

Known = dict[tuple[Product, bytes, bytes], list[Constants]]
"""Constants of products by the columns of result and operand: what lowering a graph again, cut otherwise, shares."""


def lower(
    graph: Graph, config: AcceleratorConfig, heads: int = 0, known: Known | None = None
) -> list[Operation]:
    """Operations in program order; with `heads`, attention is cut into operations of so many heads.

    `known` is added to. Raises UnsupportedError naming the step that does not fit.
    """
    return _Lowering(graph, config, heads, {} if known is None else known).run()


class _Lowering:
    """Buffers requested so far, by producer and layout; operations, last one first."""

    def __init__(self, graph: Graph, config: AcceleratorConfig, heads: int, known: Known) -> None:
        self.graph = graph
        self.config = config
        self.heads = heads
        self.known = known
        self.buffers: dict[Producer, dict[tuple[str, bytes], Buffer]] = {}
        self.image: Buffer | None = None
        self.operations: list[Operation] = []

    def run(self) -> list[Operation]:
        self._store()
        for producer in reversed(self.graph.producers):
            for bank in "XA":  # what is copied to bank X is read from bank A
                known = list(self.buffers.get(producer, {}).values())
                for buffer in reversed([buffer for buffer in known if buffer.bank == bank]):
                    self._make(producer, buffer)
        return _late(self.operations[::-1], whole=self.heads > 0)

    def _store(self) -> None:
        result = self.graph.result
        producer, rows = result.producer, result.rows
        bank = "X" if producer.dtype == "int16" else "A"
        buffer = self._request(producer, result.columns, bank, int(rows.min()), int(rows.max()) + 1)
        if len(rows) > 1 and len(buffer.columns) != len(result.columns):
            raise refusal(
                producer.step,
                f"the result has {len(rows)} tokens of {len(result.columns)} channels, which fill no whole words",
            )
        if not np.array_equal(buffer.columns[: len(result.columns)], result.columns):
            raise refusal(
                producer.step,
                "the result is not in the order in which attention leaves it",
                f"add a linear layer after it, or {OTHER_TARGET}",
            )
        for index in np.argsort(rows)[::-1]:
            self.operations.append(Store(producer.step, buffer, int(rows[index]), int(index)))

    # --- requests -------------------------------------------------------------------------------------------------

    def _request(self, producer: Producer, columns: Ints, bank: str, low: int, high: int) -> Buffer:
        """The buffer that holds `columns` and rows `low` to `high` of a producer in a bank."""
        wide = producer.dtype == "int16"
        if isinstance(producer, Attend) and bank == "A":
            columns = self._attended(producer)
        columns = pad_columns(columns, self.config.depth)
        low -= low % self.config.rows
        known = self.buffers.setdefault(producer, {})
        key = (bank, columns.tobytes())
        if key not in known:
            known[key] = Buffer(producer.step.name, bank, columns, wide, low, high)
        buffer = known[key]
        buffer.low, buffer.high = min(buffer.low, low), max(buffer.high, high)
        return buffer

    def _attended(self, producer: Attend) -> Ints:
        """The layout in which attention leaves its result: every head in whole words."""
        columns = np.arange(producer.channels).reshape(producer.heads, -1)
        return np.concatenate([pad_columns(head, self.config.depth) for head in columns])

    def _read(self, step: Step, source: Operand, bank: str, low: int, high: int) -> Buffer:
        if bank == "A" and source.producer.dtype != "int8":
            raise refusal(step, "its input is int16, the array multiplies int8 only")
        return self._request(source.producer, source.columns, bank, low, high)

    # --- operations -----------------------------------------------------------------------------------------------

    def _make(self, producer: Producer, buffer: Buffer) -> None:
        if isinstance(producer, Product):
            self._gemm(producer, buffer)
        elif isinstance(producer, Mixture):
            self._experts(producer, buffer)
        elif buffer.bank == "X":
            self._copy(producer, buffer)
        elif isinstance(producer, Norm):
            self._layernorm(producer, buffer)
        elif isinstance(producer, Attend):
            self._attention(producer, buffer)

    def _layernorm(self, norm: Norm, buffer: Buffer) -> None:
        if len(norm.gain) > self.config.norm_channels:
            raise refusal(
                norm.step,
                f"it has {len(norm.gain)} channels, the LayerNorm buffer {self.config.norm_channels}",
                "raise norm_channels in the configuration",
            )
        if not np.array_equal(buffer.columns[: norm.channels], np.arange(norm.channels)):
            raise refusal(norm.step, "only some of its channels are read")
        assert norm.source is not None
        x = self._read(norm.step, norm.source, "X", buffer.low, buffer.high)
        self.operations.append(LayerNorm(norm.step, x, buffer, norm.gain, norm.offset))

    def _copy(self, producer: Producer, buffer: Buffer) -> None:
        """Bank A to bank X, by a product with the unit matrix."""
        a = self._request(producer, buffer.columns[buffer.columns >= 0], "A", buffer.low, buffer.high)
        weight = (buffer.columns[:, None] == a.columns).astype(np.int8) * (buffer.columns >= 0)[:, None]
        ones = np.ones(len(buffer.columns), np.int64)
        self.operations.append(
            Gemm(producer.step, a, buffer, buffer.rows, weight, 0 * ones, 2 * ones, ones, 0, wide=False)
        )

    def _attention(self, attend: Attend, buffer: Buffer) -> None:
        assert attend.q is not None
        assert attend.k is not None
        assert attend.v is not None
        keys = len(attend.k.rows)
        if keys > self.config.max_keys:
            raise refusal(
                attend.step,
                f"it has {keys} keys, the configuration allows {self.config.max_keys}",
                f"raise max_keys in the configuration to at least {keys}",
            )
        q_columns, k_columns = lanes.scores(attend, self.config)
        v_columns = lanes.values(attend, self.config)
        qk_words, v_words = (len(c) // attend.heads // self.config.depth for c in (q_columns, v_columns))
        step = self.heads or attend.heads
        for first in reversed(range(0, attend.heads, step)):
            heads = min(step, attend.heads - first)
            qk, of_v = (
                slice(first * size, (first + heads) * size)
                for size in (qk_words * self.config.depth, v_words * self.config.depth)
            )
            v = self._request(attend.v.producer, v_columns[of_v], "A", 0, keys)
            k = self._request(attend.k.producer, k_columns[qk], "A", 0, keys)
            q = self._request(attend.q.producer, q_columns[qk], "A", buffer.low, buffer.high)
            operation = Attention(
                attend.step, q, (k,), (v,), buffer, first, heads, keys, qk_words, v_words, attend.table
            )
            self.operations.append(operation)

    def _experts(self, mixture: Mixture, buffer: Buffer) -> None:
        """Gate logits stay in bank A: the router reads them there, int16 too."""
        assert mixture.source is not None
        assert mixture.logits is not None
        residual = self._residual(mixture, buffer, [])
        x = self._read(mixture.step, mixture.source, "A", buffer.low, buffer.high)
        gate = mixture.logits
        logits = self._request(gate.producer, gate.columns, "A", buffer.low, buffer.high)
        self.operations.append(experts(mixture, x, logits, buffer, residual, self.config))

    def _gemm(self, product: Product, buffer: Buffer) -> None:
        computed = min(buffer.high, product.rows) - buffer.low
        preloads = self._constant_rows(product, buffer)
        if computed > 0:
            residual = self._residual(product, buffer, preloads)
            a = self._source(product, buffer, buffer.low + computed)
            self.operations.append(self._product(product, buffer, a, residual, computed))
        if product.source is None and self.image is not None and computed > 0:
            self._image(product)
        self.operations += preloads

    def _source(self, product: Product, buffer: Buffer, high: int) -> Buffer:
        if product.source is not None:
            return self._read(product.step, product.source, "A", buffer.low, high)
        if self.image is None:
            columns = pad_columns(np.arange(product.weight.shape[1]), self.config.depth)
            self.image = Buffer("image", "A", columns, False, 0, product.rows)
        return self.image

    def _image(self, product: Product) -> None:
        """The image is loaded once, before the first product that reads it."""
        assert self.image is not None
        self.operations = [op for op in self.operations if not isinstance(op, Image)]
        graph = self.graph
        self.operations.append(Image(product.step, self.image, graph.pixels, graph.image, graph.patch))

    def _product(
        self, product: Product, buffer: Buffer, a: Buffer, residual: Buffer | None, rows: int
    ) -> Gemm:
        key = (product, buffer.columns.tobytes(), a.columns.tobytes())
        if key not in self.known:
            one = Constants(product.weight, product.bias, product.multiplier, product.shift)
            self.known[key] = [self._constants(product, buffer, a, of) for of in product.tasks or (one,)]
        first, *others = self.known[key]
        add = {} if product.addend is None else product.addend.attrs
        return Gemm(
            product.steps[-1], a, buffer, rows, first.weight, first.bias, first.multiplier, first.shift,
            product.zero, product.wide, product.table, residual, add, (first, *others) if product.tasks else (),
        )  # fmt: skip

    def _constants(self, product: Product, buffer: Buffer, a: Buffer, of: Constants) -> Constants:
        """Constants for the columns of `buffer` and of `a`."""
        columns = buffer.columns
        real, index = columns >= 0, np.maximum(columns, 0)
        weight = self._weight(product, a, of.weight[index]).astype(np.int8, copy=False)
        weight[~real] = 0
        bias, multiplier, shift = (
            np.where(real, values[index].astype(np.int64), filler)
            for values, filler in ((of.bias, 0), (of.multiplier, 0), (of.shift, 1))
        )
        for lane in np.flatnonzero(columns < PAD):
            bias[lane] = 2 * (lanes.before_table(product, int(columns[lane]) - CONSTANT) - product.zero)
            multiplier[lane] = 1
        return Constants(weight, bias, multiplier, shift)

    def _weight(self, product: Product, a: Buffer, given: Array) -> Array:
        """Weights [channels, a's columns], a new array: the depth in the order in which `a` holds it."""
        if product.source is None:
            extra = len(a.columns) - given.shape[1]
            return np.pad(given, ((0, 0), (0, extra)))
        position = {int(c): i for i, c in reversed(list(enumerate(a.columns))) if c >= 0}
        index = np.array([position[int(c)] for c in product.source.columns])
        if np.array_equal(index, np.arange(len(a.columns))):
            return given.copy()
        if len(set(index.tolist())) == len(index):
            weight = np.zeros((len(given), len(a.columns)), given.dtype)
            weight[:, index] = given
            return weight
        weight = np.zeros((len(given), len(a.columns)), np.int64)
        np.add.at(weight.T, index, given.T)
        if weight.min(initial=0) < -128 or weight.max(initial=0) > 127:
            raise refusal(product.step, "it reads a channel more than once")
        return weight

    def _residual(
        self, product: Product | Mixture, buffer: Buffer, preloads: list[Operation]
    ) -> Buffer | None:
        if product.addend is None:
            return None
        other = product.addend.other
        if isinstance(other, Operand):
            return self._request(
                other.producer, other.columns[buffer.columns[buffer.columns >= 0]], "X",
                buffer.low, min(buffer.high, product.rows),
            )  # fmt: skip
        assert isinstance(product, Product)
        return self._constant_residual(product, buffer, other, preloads)

    def _constant_residual(
        self, product: Product, buffer: Buffer, other: Array, preloads: list[Operation]
    ) -> Buffer:
        """A constant addend lies where the result will: if it fits there, and the result goes to bank X."""
        values = _spread(other, buffer.columns)
        wide = other.dtype == np.int16
        if buffer.bank == "X" and (buffer.wide or not wide):
            constant = _spread(np.array(product.constants or np.zeros((0, product.channels))), buffer.columns)
            preloads.clear()
            rows = np.concatenate([values, constant])[buffer.low : buffer.high]
            preloads.append(Preload(product.steps[-1], buffer, buffer.low, rows))
            return buffer
        high = min(buffer.high, product.rows)
        apart = Buffer(f"{product.step.name} addend", "X", buffer.columns, wide, buffer.low, high)
        preloads.append(Preload(product.steps[-1], apart, buffer.low, values[buffer.low : high]))
        return apart

    def _constant_rows(self, product: Product, buffer: Buffer) -> list[Operation]:
        """Preloads the row tiles of `buffer` in which constant rows lie."""
        if buffer.high <= product.rows or not product.constants:
            return []
        low = max(product.rows - product.rows % self.config.rows, buffer.low)
        computed = np.zeros((max(product.rows - low, 0), product.channels), np.int64)
        skipped = max(low - product.rows, 0)
        constant = np.array(product.constants[skipped : buffer.high - product.rows])
        values = _spread(np.concatenate([computed, constant]), buffer.columns)
        return [Preload(product.steps[-1], buffer, low, values)]


def _spread(values: Array, columns: Ints) -> Array:
    """Values [rows, channels] in a buffer's columns."""
    assert (columns >= PAD).all()
    result: Array = np.where(columns >= 0, values[:, columns], 0)
    return result


def _late(operations: list[Operation], whole: bool) -> list[Operation]:
    """Keys and values first: copying them overlaps the product that makes the queries.

    With `whole`, keys and values too are not made before the attention that reads them.
    """
    order: list[Operation] = []
    waiting: dict[Buffer, Operation] = {}
    late: set[Buffer] = set()
    for attention in operations:
        if isinstance(attention, Attention):
            late |= {*attention.k, *attention.v, attention.q} if whole else {attention.q}
    for operation in operations:
        if isinstance(operation, Gemm) and operation.out in late:
            waiting[operation.out] = operation
            continue
        if isinstance(operation, Attention):
            needed = (*operation.k, *operation.v, operation.q)
            order += [waiting.pop(buffer) for buffer in needed if buffer in waiting]
        order.append(operation)
    return order
