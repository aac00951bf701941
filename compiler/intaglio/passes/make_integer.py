"""QDQ graph -> integer ops: the heart of the compiler, made of what lies in `integer/`.

One walk in dataflow order (`walk.py`) keeps a description of every real tensor (`lazy.py`). Quantize and dequantize
move values onto and off grids; scale factors, biases and data movement change descriptions only; an integer op is
emitted when an exact result meets its grid (`emit.py`). Requires canonical movement and recognised LayerNorms; ensures
that `main` holds `intaglio.*` calls only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import tvm
from tvm import relax

from intaglio.errors import CalibrationError, UnsupportedError
from intaglio.passes.graph import Graph, dtype_of, op_name, shape_of
from intaglio.passes.integer import combine, experts, functions, movement, products, quantization, ranking
from intaglio.passes.integer.emit import Emitter, Missing, Preprocessing
from intaglio.passes.integer.walk import Handler, Walk

# What each operator of a QDQ graph means in integers; anything else is refused by name.
HANDLERS: dict[str, Handler] = {
    "relax.quantize": quantization.quantize,
    "relax.dequantize": quantization.dequantize,
    "relax.matmul": products.matmul,
    "relax.nn.conv2d": products.conv2d,
    "relax.nn.layer_norm": products.layer_norm,
    "relax.nn.softmax": products.softmax,
    "relax.mean": products.mean,
    "intaglio_moe.mixture": experts.mixture,
    "relax.reshape": movement.reshape,
    "relax.permute_dims": movement.permute_dims,
    "relax.strided_slice": movement.strided_slice,
    "relax.take": movement.take,
    "relax.broadcast_to": movement.broadcast_to,
    "relax.concat": movement.concat,
    "relax.argmax": ranking.argmax,
    "relax.topk": ranking.topk,
    "TupleGetItem": ranking.tuple_item,
    "relax.astype": ranking.astype,
    **dict.fromkeys(functions.UNARY, combine.unary),  # abs, erf, gelu, sigmoid, ...
    **dict.fromkeys(functions.BINARY, combine.binary),  # add, subtract, multiply, divide, ...
}
SHOWN = 8


@dataclass(frozen=True)
class MakeInteger:
    """The pass; its fields are its options. `names`: Relax variable -> ONNX tensor; `nodes`: ONNX tensor -> node.

    `preprocessing` says what the compiled model's input is, `nonlinear` is the set of non-linear ops (exact or ivit).
    `bounds`: the largest values of gate logits without a scale, by ONNX tensor; the pass adds what it finds, and
    keeps to what is larger.
    """

    names: dict[str, str]
    nodes: dict[str, str]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    nonlinear: str = "exact"
    bounds: dict[str, float] = field(default_factory=dict)

    def __call__(self, module: tvm.IRModule) -> tvm.IRModule:
        """Relax to Relax.

        Raises UnsupportedError naming each node that has no integer meaning, CalibrationError naming each tensor
        without a scale.
        """
        module, missing = self._run(module)
        if missing:
            raise _uncalibrated(missing)
        return module

    def analyse(self, module: tvm.IRModule) -> list[Missing]:
        """What calibration would have to supply. Raises UnsupportedError as the pass does."""
        return self._run(module)[1]

    def _run(self, module: tvm.IRModule, input_dtype: str = "") -> tuple[tvm.IRModule, list[Missing]]:
        graph = Graph(module)
        builder = relax.BlockBuilder()
        emitter = Emitter(builder, self.preprocessing, self.nonlinear, bounds=self.bounds)
        model_input = relax.Var(graph.parameters[0].name, self._input_type(graph, input_dtype))
        walk = Walk(graph, emitter, self.names, model_input, HANDLERS)
        with builder.function("main", [model_input]):
            with builder.dataflow():
                result = builder.emit_output(walk.result())
            builder.emit_func_output(result)
        if emitter.input_grid and not input_dtype and emitter.input_grid.dtype != dtype_of(model_input):
            return self._run(module, emitter.input_grid.dtype)  # its first quantizer is not its direct reader
        if walk.problems:
            raise _unsupported({self.nodes.get(tensor, tensor): why for tensor, why in walk.problems.items()})
        module = builder.get()
        if not emitter.missing:
            module["main"] = module["main"].with_attrs(_interface(walk))
        return module, emitter.missing

    def _input_type(self, graph: Graph, known: str) -> relax.TensorType:
        """uint8 for raw pixels, else the type that the graph quantizes its input to (int16 until that is `known`)."""
        parameter = graph.parameters[0]
        if known:
            return relax.TensorType(shape_of(parameter), known)
        if self.preprocessing.kind == "uint8":
            return relax.TensorType(shape_of(parameter), "uint8")
        if dtype_of(parameter) in ("int8", "int16", "uint8"):
            return relax.TensorType(shape_of(parameter), dtype_of(parameter))
        users = graph.users(parameter)
        kinds = [dtype_of(user) for user in users if op_name(graph.definition[user]) == "relax.quantize"]
        return relax.TensorType(shape_of(parameter), kinds[0].lstrip("u") if kinds else "int16")


def _interface(walk: Walk) -> dict[str, str]:
    """Grids of input and output, as function attributes (floats as text: they must survive to the bit)."""
    grids = {"output": walk.output.grid if walk.output else None, "input": walk.emitter.input_grid}
    return {
        f"{key}_grid": f"{grid.scale!r} {grid.zero_point} {grid.dtype}" for key, grid in grids.items() if grid
    }


def _uncalibrated(missing: list[Missing]) -> CalibrationError:
    shown = ", ".join(f"{m.tensor!r} ({m.role})" for m in missing[:SHOWN])
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    if any(entry.role == "weight" for entry in missing):
        repair = (
            "quantize the model with `intaglio quantize MODEL --calibrate images/ -o OUT.onnx` "
            "and compile OUT.onnx"
        )
    else:
        repair = (
            "complete the model with `intaglio quantize --complete MODEL --calibrate images/ -o OUT.onnx` "
            "(its own scales are kept) and compile OUT.onnx"
        )
    return CalibrationError(
        f"{len(missing)} tensors are left in floating point, without a quantization scale: {shown}{more}; {repair}"
    )


def _unsupported(problems: dict[str, str]) -> UnsupportedError:
    lines = [f"node {node!r} {why}" for node, why in problems.items()]
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return UnsupportedError(f"not everything can be made integer. {'; '.join(lines[:SHOWN])}{more}")
