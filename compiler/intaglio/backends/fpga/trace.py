"""Program -> producers: data movement is followed element by element on paper and never executed.

Every activation is an array of codes, one per element: producer << 40 | row * channels + channel. Reshape, transpose,
slice and concat move codes as they would move values; what reads them then sees which producer, row and channel each of
its elements is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from intaglio.backends.fpga.graph import (
    Addend,
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
from intaglio.backends.fpga.mixture import mixture
from intaglio.backends.fpga.refusal import check, refusal
from intaglio.errors import UnsupportedError
from intaglio.ops import get
from intaglio.program import Array, Program, Step

SHIFT = 40
MOVES = ("reshape", "transpose", "slice", "concat")
Sum = Product | Mixture
"""What a residual can be added to."""
SWAPPED = {"a_multiplier": "b_multiplier", "b_multiplier": "a_multiplier"}


def trace(program: Program) -> Graph:
    """The accelerator's view of `program`. Raises UnsupportedError naming the step that does not fit."""
    check(program)
    return _Tracer(program).run()


class _Tracer:
    """Codes by tensor name, and the producers they point to; constants are producers too (`values`)."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.codes: dict[str, Ints] = {}
        self.producers: list[Producer | Array] = []
        self.pixels: Array | None = None
        self.patched: Step | None = None
        self.raw = {program.input}
        self.merged: dict[bytes, Ints] = {}

    def run(self) -> Graph:
        for step in self.program.steps:
            self._step(step)
        if self.patched is None:
            raise UnsupportedError(
                f"{self.program.name} has no patch embedding, so no image can enter the accelerator; {_CPU}."
            )
        last = self.program.steps[-1]
        result = self._operand(last, self.codes[self.program.output], self.program.output)
        ph, pw = self.patched.attrs["patch"]
        channels, height, width = self.program.tensors[self.program.input].shape[1:]
        image = (channels, height, width)
        producers = [producer for producer in self.producers if isinstance(producer, Producer)]
        return Graph(producers, self._pixel_tables(channels), image, (ph, pw), result)

    def _pixel_tables(self, channels: int) -> Array:
        """int8 [channels, 256], by raw byte: an int8 input passes unchanged."""
        if self.pixels is not None:
            return self.pixels
        identity = np.arange(256).astype(np.uint8).view(np.int8)
        return np.broadcast_to(identity, (channels, 256))

    def _step(self, step: Step) -> None:
        actions: dict[str, Callable[[Step], Ints]] = {
            "patch_embed": self._patch_embed, "linear": self._linear, "attention": self._attention,
            "layernorm": self._layernorm, "table": self._table, "add": self._add, "moe": self._moe,
        }  # fmt: skip
        if step.op == "quantize_input":
            self._quantize_input(step)
        elif step.op in MOVES:
            self.codes[step.output] = self._move(step)
        elif step.op in actions:
            self.codes[step.output] = actions[step.op](step)
        else:
            raise refusal(step, "there is no unit for it")

    # --- codes ----------------------------------------------------------------------------------------------------

    def _define(self, producer: Producer | Array, shape: tuple[int, ...], rows: Ints | None = None) -> Ints:
        """Codes of a new producer's tensor; `rows`: its buffer row of every token, in order by default."""
        number = len(self.producers)
        self.producers.append(producer)
        if rows is None:
            return (number << SHIFT) + np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        channels = shape[-1]
        return ((number << SHIFT) + rows[:, None] * channels + np.arange(channels)).reshape(shape)

    def _get(self, name: str) -> Ints:
        """Codes of a tensor; a constant becomes a producer when it is first read."""
        tensor = self.program.tensors[name]
        if name not in self.codes and tensor.data is not None:
            self.codes[name] = self._define(tensor.data, tensor.shape)
        return self.codes[name]

    def _move(self, step: Step) -> Ints:
        if any(name in self.raw for name in step.inputs):
            raise refusal(step, "it rearranges the image before the patch embedding")
        codes = [self._get(name) for name in step.inputs]
        return np.asarray(get(step.op).reference(codes, step.attrs), np.int64)

    def _producer(self, code: int) -> Producer | Array:
        return self.producers[code >> SHIFT]

    def _source(self, step: Step, name: str, codes: Ints) -> Producer:
        """The one producer of all of `codes`."""
        low, high = _span(codes)
        producer = self.producers[low]
        if low != high or not isinstance(producer, Producer):
            raise refusal(step, f"its operand {name!r} is put together from several tensors")
        return producer

    def _operand(self, step: Step, codes: Ints, name: str) -> Operand:
        """`codes` [.., K] as rows and columns of one producer."""
        flat = self._merge(codes.reshape(-1, codes.shape[-1]))
        producer = self._source(step, name, flat)
        rows, first = np.divmod(flat[:, 0] & ((1 << SHIFT) - 1), producer.channels)
        row, columns = np.divmod(flat[0] & ((1 << SHIFT) - 1), producer.channels)
        regular = np.array_equal(flat, flat[:, :1] + (flat[0] - flat[0, 0]))
        if not regular or (first != first[0]).any() or (row != row[0]).any():
            raise refusal(step, f"its operand {name!r} mixes tokens and channels in one row")
        return Operand(producer, rows, columns)

    def _merge(self, codes: Ints) -> Ints:
        """Constant rows of `codes` [T, C] beside those of one producer become rows of that producer."""
        constant = self._constant(codes).all(axis=1)
        if not constant.any():
            return codes
        numbers = np.unique(codes[:, 0] >> SHIFT)
        computed = [n for n in numbers if isinstance(self.producers[n], Producer)]
        if len(computed) != 1:
            return codes
        producer = self.producers[int(computed[0])]
        assert isinstance(producer, Producer)
        if producer.channels != codes.shape[1] or not isinstance(producer, Product):
            return codes
        result = codes.copy()
        for index in np.flatnonzero(constant):
            result[index] = self._appended(int(computed[0]), producer, codes[index])
        return result

    def _appended(self, number: int, producer: Product, row: Ints) -> Ints:
        key = number.to_bytes(8, "little") + row.tobytes()
        if key not in self.merged:
            base = (number << SHIFT) + producer.total_rows * producer.channels
            producer.constants.append(self._values(row))
            self.merged[key] = base + np.arange(producer.channels)
        return self.merged[key]

    def _values(self, codes: Ints) -> Array:
        """Values of constant elements."""
        values = np.zeros(codes.shape, np.int64)
        for number in np.unique(codes >> SHIFT):
            data = self.producers[int(number)]
            assert isinstance(data, np.ndarray)
            mask = codes >> SHIFT == number
            values[mask] = data.reshape(-1)[codes[mask] & ((1 << SHIFT) - 1)]
        return values

    def _constant(self, codes: Ints) -> Array:
        """Which elements are constants."""
        low, high = _span(codes)
        if low == high:
            return np.broadcast_to(isinstance(self.producers[low], np.ndarray), codes.shape)
        constant = np.array([isinstance(producer, np.ndarray) for producer in self.producers])
        return np.asarray(constant[codes >> SHIFT])

    # --- ops ------------------------------------------------------------------------------------------------------

    def _quantize_input(self, step: Step) -> None:
        if step.inputs[0] != self.program.input:
            raise refusal(step, "only the model's input may be raw pixels")
        table = self.program.tensors[step.inputs[1]].data
        assert table is not None
        if table.dtype != np.int8:
            raise refusal(step, f"it makes {table.dtype} pixels, the array multiplies int8 only")
        self.pixels = table
        self.raw.add(step.output)

    def _constants(self, step: Step, first: int, count: int) -> list[Array]:
        tensors = [self.program.tensors[name] for name in step.inputs[first : first + count]]
        assert all(tensor.data is not None for tensor in tensors)
        return [tensor.data for tensor in tensors if tensor.data is not None]

    def _product(self, step: Step, source: Operand | None, rows: int) -> Product:
        arrays, attrs = self._constants(step, 1, 4), step.attrs
        if int(arrays[2].max(initial=0)) >= 1 << 26:
            raise refusal(step, "a multiplier has more than 26 bits")
        tasks = tuple(Constants(*of) for of in zip(*arrays, strict=True)) if attrs.get("has_task") else ()
        one = tasks[0] if tasks else Constants(*arrays)
        return Product(
            step, rows, len(one.weight), attrs["dtype"], source=source, weight=one.weight, bias=one.bias,
            multiplier=one.multiplier, shift=one.shift, zero=attrs["zero_point"], wide=attrs["dtype"] == "int16",
            steps=(step,), tasks=tasks,
        )  # fmt: skip

    def _patch_embed(self, step: Step) -> Ints:
        if step.inputs[0] not in self.raw:
            raise refusal(step, "its input is not the model's input")
        if self.patched is not None:
            raise refusal(step, "the image is embedded twice")
        self.patched = step
        shape = self.program.tensors[step.output].shape
        return self._define(self._product(step, None, shape[1]), shape)

    def _linear(self, step: Step) -> Ints:
        if step.inputs[0] in self.raw:
            raise refusal(step, "it reads the image without a patch embedding")
        source = self._operand(step, self._get(step.inputs[0]), step.inputs[0])
        product = self._product(step, source, source.producer.total_rows)
        if step.attrs["has_table"]:
            product = self._tabled(step, product, self._constants(step, 5, 1)[0])
        shape = self.program.tensors[step.output].shape
        codes = self._define(product, shape, source.rows)
        if step.attrs["has_residual"]:
            attrs = {k.removeprefix("add_"): v for k, v in step.attrs.items() if k.startswith("add_")}
            residual = step.inputs[-2 if step.attrs.get("has_task") else -1]
            return self._sum(step, codes, self._get(residual), attrs)
        return codes

    def _tabled(self, step: Step, product: Product, table: Array) -> Product:
        if product.table is not None:
            table = table[product.table.astype(np.int64) + 128]
        dtype = str(table.dtype)
        steps = product.steps if step in product.steps else (*product.steps, step)
        return replace(product, table=table, dtype=dtype, steps=steps, constants=[])

    def _table(self, step: Step) -> Ints:
        """A table of a product's result, or of columns of it, becomes part of the product."""
        codes = self._get(step.inputs[0])
        table = self._constants(step, 1, 1)[0]
        if self._constant(codes).all():
            return self._define(table[self._values(codes) + 128], codes.shape)
        if step.inputs[0] in self.raw:
            raise refusal(step, "it reads the image")
        producer = self._source(step, step.inputs[0], codes)
        if not isinstance(producer, Product) or producer.addend is not None or producer.wide:
            raise refusal(step, f"a table runs only on the result of a linear, not of {producer.step.op}")
        if producer.constants:
            raise refusal(step, "it reads constant tokens")
        self._define(self._tabled(step, producer, table), (0,))
        number = len(self.producers) - 1
        return (codes & ((1 << SHIFT) - 1)) + (number << SHIFT)

    def _add(self, step: Step) -> Ints:
        a, b = (self._get(name) for name in step.inputs)
        return self._sum(step, a, np.broadcast_to(b, a.shape), dict(step.attrs))

    def _sum(self, step: Step, a: Ints, b: Ints, attrs: dict[str, Any]) -> Ints:
        """The sum as part of the product that makes one of its operands."""
        shape = a.shape
        a, b = a.reshape(-1, shape[-1]), b.reshape(-1, shape[-1])
        if not self._addable(a, b):
            a, b = b, a
            attrs = {SWAPPED.get(key, key): value for key, value in attrs.items()}
        if not self._addable(a, b):
            raise refusal(step, "neither operand is the result of a linear that nothing was added to yet")
        constant = np.asarray(self._constant(a).all(axis=1))
        main = self._operand(step, a[~constant], step.inputs[0])
        if not self._constant(b).all():
            return self._residual(step, main, self._operand(step, b, step.inputs[-1]), attrs, shape)
        return self._position(step, main, a, b, constant, attrs).reshape(shape)

    def _addable(self, a: Ints, b: Ints) -> bool:
        """Whether `a` is a product's result (beside constant rows, if `b` is constant) that can take an addend."""
        constant = np.asarray(self._constant(a).all(axis=1))
        if constant.all() or (constant.any() and not self._constant(b).all()):
            return False
        computed = a[~constant] if constant.any() else a
        low, high = _span(computed)
        producer = self.producers[low]
        natural = (computed & ((1 << SHIFT) - 1)) % a.shape[1] == np.arange(a.shape[1])
        free = isinstance(producer, Sum) and producer.addend is None and not producer.constants
        if isinstance(producer, Mixture) and self._constant(b).any():
            return False
        return bool(free and low == high and producer.channels == a.shape[1] and natural.all())  # type: ignore[union-attr]

    def _residual(
        self, step: Step, main: Operand, other: Operand, attrs: Any, shape: tuple[int, ...]
    ) -> Ints:
        product = main.producer
        assert isinstance(product, Sum)
        if (main.rows != other.rows).any() or (other.columns != main.columns).any():
            raise refusal(step, "its operands are in different orders")
        if other.producer.channels != product.channels:
            raise refusal(step, "its operands have different numbers of channels")
        return self._define(self._with(step, product, other, attrs), shape, main.rows)

    def _position(
        self, step: Step, main: Operand, a: Ints, b: Ints, constant: Array, attrs: dict[str, Any]
    ) -> Ints:
        """Tokens plus a constant: rows that are constant already are evaluated here."""
        product = main.producer
        assert isinstance(product, Product)
        if len(main.rows) != product.rows or len(set(main.rows.tolist())) != product.rows:
            raise refusal(step, "it adds a constant to some of the tokens only")
        addend = np.zeros((product.rows, product.channels), self._dtype(b))
        addend[main.rows] = self._values(b[~constant])
        result = self._with(step, product, addend, attrs)
        rows = np.zeros(len(a), np.int64)
        rows[~constant] = main.rows
        rows[constant] = product.rows + np.arange(int(constant.sum()))
        if constant.any():
            left = self._values(a[constant]).astype(product.dtype)
            result.constants = list(get("add").reference([left, self._values(b[constant])], attrs))
        return self._define(result, a.shape, rows)

    def _dtype(self, codes: Ints) -> np.dtype[Any]:
        data = self._producer(int(codes.flat[0]))
        assert isinstance(data, np.ndarray)
        return data.dtype

    def _with(self, step: Step, product: Sum, other: Operand | Array, attrs: dict[str, Any]) -> Sum:
        steps = product.steps if step in product.steps else (*product.steps, step)
        return replace(product, addend=Addend(other, attrs), dtype=attrs["dtype"], steps=steps, constants=[])

    def _layernorm(self, step: Step) -> Ints:
        source = self._operand(step, self._get(step.inputs[0]), step.inputs[0])
        if not np.array_equal(source.columns, np.arange(source.producer.channels)):
            raise refusal(step, "it normalizes some of the channels only")
        gain, offset = self._constants(step, 1, 2)
        norm = Norm(
            step, source.producer.total_rows, len(gain), "int8", source=source, gain=gain, offset=offset
        )
        return self._define(norm, self.program.tensors[step.output].shape, source.rows)

    def _attention(self, step: Step) -> Ints:
        q, k, v = (self._heads(step, name) for name in step.inputs[:3])
        keys = len(k.rows)
        if set(k.rows.tolist()) != set(range(keys)) or not np.array_equal(k.rows, v.rows):
            raise refusal(step, "its keys and values are not the first tokens of one tensor")
        shape = self.program.tensors[step.output].shape
        heads, queries, depth = shape[1:]
        table = self._constants(step, 3, 1)[0]
        attend = Attend(
            step, q.producer.total_rows, heads * depth, "int8", heads=heads, q=q, k=k, v=v, table=table[0]
        )
        tokens = self._define(attend, (queries, heads * depth), q.rows)
        return tokens.reshape(1, queries, heads, depth).transpose(0, 2, 1, 3)

    def _moe(self, step: Step) -> Ints:
        source, logits = (self._operand(step, self._get(name), name) for name in step.inputs[:2])
        if not np.array_equal(source.rows, logits.rows):
            raise refusal(step, "its gate logits are of other tokens, or in another order")
        producer = mixture(step, source, logits, self._constants(step, 2, len(step.inputs) - 2))
        return self._define(producer, self.program.tensors[step.output].shape, source.rows)

    def _heads(self, step: Step, name: str) -> Operand:
        """q, k or v [1, H, T, D] as an operand whose columns are [H, D]."""
        codes = self._get(name)
        _, heads, tokens, depth = codes.shape
        return self._operand(step, codes[0].transpose(1, 0, 2).reshape(tokens, heads * depth), name)


def _span(codes: Ints) -> tuple[int, int]:
    """The lowest and the highest number of a producer among `codes`."""
    return int(codes.min()) >> SHIFT, int(codes.max()) >> SHIFT


_CPU = "compile for target cpu or c"
