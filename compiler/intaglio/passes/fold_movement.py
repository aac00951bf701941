"""Fold data movement: a chain of reshapes and transposes becomes at most reshape, transpose, reshape.

Moves that do nothing go. Exporters move heads around by many small steps (split, squeeze, merge batch and heads,
transpose, split again). A chain is tracked over the atoms that its reshapes split dimensions into; what is left is the
one permutation it amounts to.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from intaglio.ops import relax as integer_relax
from intaglio.passes.graph import Graph, constant, rebuild, shape_of
from intaglio.passes.integer.emit import integer_constant
from intaglio.passes.integer.lazy import Move
from intaglio.passes.integer.moves import moved_array

VIEWS = ("reshape", "transpose")
FOLDED = ("reshape", "transpose", "slice", "broadcast")


def fold_movement(module: tvm.IRModule) -> tvm.IRModule:
    """Relax to Relax, on integer ops."""
    graph = Graph(module)

    def rewrite(var: relax.Var, value: relax.Expr, builder: relax.BlockBuilder) -> relax.Expr:
        name = integer_relax.op_name(value)
        if name is None:
            return value
        array = constant(value.args[0]) if name in FOLDED else None
        if array is not None:
            return integer_constant(moved_array(array, (name, integer_relax.attrs_of(value))))
        if name in ("slice", "broadcast") and shape_of(value.args[0]) == shape_of(var):
            return value.args[0]
        if name in VIEWS:
            return _view(var, value, builder)
        if name == "table":
            return _hoisted(var, value, builder)
        return value

    return rebuild(graph, rewrite)


def _view(var: relax.Var, value: relax.Call, builder: relax.BlockBuilder) -> relax.Expr:
    chain, source = _chain(value, builder)
    moves = [(str(integer_relax.op_name(call)), integer_relax.attrs_of(call)) for call in chain]
    steps = compose(shape_of(source), moves)
    if len(steps) > len(chain):
        return value
    expr = source
    notes = {"onnx": chain[-1].attrs["onnx"], "grid": chain[-1].attrs["grid"]}
    for op, attrs in steps:
        expr = builder.emit(integer_relax.call(op, [expr], attrs | notes), name_hint=var.name)
    return expr


def _hoisted(var: relax.Var, table: relax.Call, builder: relax.BlockBuilder) -> relax.Expr:
    """table(view(x)) as view(table(x)), so that the views on both sides meet."""
    before = builder.lookup_binding(table.args[0]) if isinstance(table.args[0], relax.Var) else None
    if before is None or integer_relax.op_name(before) not in VIEWS:
        return table
    chain, source = _chain(before, builder)
    expr = builder.emit(relax.Call(table.op, [source, table.args[1]], table.attrs), name_hint=var.name)
    for view in chain:
        attrs = integer_relax.attrs_of(view) | {"grid": table.attrs["grid"]}
        moved = integer_relax.call(str(integer_relax.op_name(view)), [expr], attrs)
        expr = builder.emit(moved, name_hint=var.name)
    return expr


def _chain(value: relax.Call, builder: relax.BlockBuilder) -> tuple[list[relax.Call], relax.Expr]:
    """The views that lead to `value`, first to last, and what they start from."""
    chain = [value]
    while isinstance(chain[0].args[0], relax.Var):
        before = builder.lookup_binding(chain[0].args[0])
        if before is None or integer_relax.op_name(before) not in VIEWS:
            break
        chain.insert(0, before)
    return chain, chain[0].args[0]


def compose(shape: tuple[int, ...], moves: list[Move]) -> list[Move]:
    """The shortest equivalent of a chain of reshapes and transposes of a tensor of `shape`.

    Returns the chain itself where a reshape cuts across atoms (which no exporter's head-splitting does).
    """
    atoms = _Atoms(shape)
    for op, attrs in moves:
        if op == "transpose":
            atoms.transpose(attrs["axes"])
        elif not atoms.reshape(attrs["shape"]):
            return moves
    return atoms.moves(shape)


class _Atoms:
    """The factors of a tensor's dimensions: `source` lists them in memory order, `dims` groups them by present axis."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.size = dict(enumerate(shape))
        self.source = list(range(len(shape)))
        self.dims = [[atom] for atom in self.source]
        self.shape = list(shape)

    def transpose(self, axes: list[int]) -> None:
        self.dims = [self.dims[axis] for axis in axes]
        self.shape = [self.shape[axis] for axis in axes]

    def reshape(self, shape: list[int]) -> bool:
        """Regroup the atoms, splitting where a dimension is split; False if they do not divide."""
        queue = [atom for dim in self.dims for atom in dim if self.size[atom] != 1]
        dims = []
        for wanted in shape:
            dim: list[int] = []
            while wanted > 1:
                atom = queue.pop(0)
                if wanted % self.size[atom] and self.size[atom] % wanted:
                    return False
                if self.size[atom] > wanted:
                    queue.insert(0, self._split(atom, wanted))
                wanted //= self.size[atom]
                dim.append(atom)
            dims.append(dim)
        self.dims, self.shape = dims, list(shape)
        return True

    def _split(self, atom: int, outer: int) -> int:
        """Split `atom` into an outer part of that size and the rest; return the rest."""
        rest = len(self.size)
        self.size[rest] = self.size[atom] // outer
        self.size[atom] = outer
        self.source.insert(self.source.index(atom) + 1, rest)
        return rest

    def moves(self, shape: tuple[int, ...]) -> list[Move]:
        """At most reshape, transpose, reshape."""
        source = [atom for atom in self.source if self.size[atom] != 1]
        runs = self._runs(source)
        steps: list[Move] = []
        current = list(shape)
        order = sorted(range(len(runs)), key=lambda r: source.index(runs[r][0]))
        if order != list(range(len(runs))):
            grouped = [int(np.prod([self.size[a] for a in runs[r]])) for r in order]
            if grouped != current:
                steps.append(("reshape", {"shape": grouped}))
            axes = [order.index(r) for r in range(len(runs))]
            steps.append(("transpose", {"axes": axes}))
            current = [grouped[axis] for axis in axes]
        if current != self.shape:
            steps.append(("reshape", {"shape": self.shape}))
        return steps

    def _runs(self, source: list[int]) -> list[list[int]]:
        """Present atoms in order, those that are also neighbours in memory joined."""
        runs: list[list[int]] = []
        for atom in (a for dim in self.dims for a in dim if self.size[a] != 1):
            if runs and source.index(runs[-1][-1]) + 1 == source.index(atom):
                runs[-1].append(atom)
            else:
                runs.append([atom])
        return runs
