"""Read an ONNX file, or say in one sentence why it cannot be read."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from intaglio.errors import ModelError

MINIMUM_OPSET = 13


def load(path: Path) -> onnx.ModelProto:
    """Load and check `path`.

    Raises ModelError if the file is missing, is not ONNX, is truncated or fails ONNX's own structural check.
    """
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; give the path of an ONNX model")
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the path of an ONNX model")
    try:
        model = onnx.load(path, format="protobuf")  # whatever its suffix
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX file, or truncated: {error}") from error
    except (OSError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: cannot be read (is external data missing?): {error}") from error
    _check(path, model)
    return model


def opset_of(model: onnx.ModelProto, domain: str = "") -> int:
    """Version of `domain` that the model imports, 0 if it does not."""
    aliases = {"", "ai.onnx"} if domain == "" else {domain}
    return max((entry.version for entry in model.opset_import if entry.domain in aliases), default=0)


def _check(path: Path, model: onnx.ModelProto) -> None:
    if not model.HasField("graph") or not model.graph.node or not model.graph.output:
        raise ModelError(f"{path}: not an ONNX model, or truncated: it has no graph with nodes and outputs")
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if not MINIMUM_OPSET <= opset <= newest:
        raise ModelError(
            f"{path}: opset {opset} of ai.onnx is not supported; export the model with opset "
            f"{MINIMUM_OPSET} to {newest}"
        )
    _check_text(path, model)
    _check_tensors(path, model.graph)
    _check_names(path, model.graph)
    _check_nodes(path, model)


def _check_text(path: Path, model: onnx.ModelProto) -> None:
    """Names must be text: protobuf hands out what a damaged file holds instead."""
    graph = model.graph
    texts = [value.name for value in [*graph.input, *graph.output, *graph.initializer]]
    texts += [entry.domain for entry in model.opset_import]
    texts += [d.dim_param for value in graph.input for d in value.type.tensor_type.shape.dim]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
    for text in texts:
        if not isinstance(text, str) or not text.isprintable():
            raise ModelError(
                f"{path}: a name of its graph is not readable text ({text!r}); the file is damaged"
            )


def _check_tensors(path: Path, graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        try:
            onnx.numpy_helper.to_array(tensor)
        except (
            Exception
        ) as error:  # of many kinds: unknown types, lengths that do not fit, negative dimensions
            why = f"{type(error).__name__}: {error}"
            raise ModelError(f"{path}: the constant {tensor.name!r} is damaged ({why})") from error


def _check_nodes(path: Path, model: onnx.ModelProto) -> None:
    """Operands, results and attributes of standard ops, against ONNX's own schemas."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {entry.domain: entry.version for entry in model.opset_import}
    context.opset_imports |= {"": opset_of(model)}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
            continue
        if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
            continue  # its body reads tensors from outside, which this check does not know
        if not node.output:
            raise ModelError(f"{path}: node {describe(node)} has no output; the file is damaged")
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            why = str(error).strip().splitlines()[0]
            raise ModelError(f"{path}: node {describe(node)} is malformed: {why}") from error


def _check_names(path: Path, graph: onnx.GraphProto) -> None:
    known = {value.name for value in graph.input} | {value.name for value in graph.initializer}
    known |= {value.values.name for value in graph.sparse_initializer} | {""}
    for node in graph.node:
        missing = [name for name in node.input if name not in known]
        if missing:
            raise ModelError(
                f"{path}: node {describe(node)} reads {missing[0]!r}, which nothing before it defines; "
                "the file is damaged or its nodes are not in topological order"
            )
        twice = [name for name in node.output if name and name in known]
        if twice:
            raise ModelError(
                f"{path}: node {describe(node)} defines {twice[0]!r}, which is defined twice; the file is damaged"
            )
        known.update(node.output)
    for output in graph.output:
        if output.name not in known:
            raise ModelError(f"{path}: graph output {output.name!r} is never computed; the file is damaged")


def describe(node: onnx.NodeProto) -> str:
    """How messages name a node: its name and type, or its first output where it has no name."""
    domain = f"{node.domain}::" if node.domain else ""
    return f"{node.name or (node.output[0] if node.output else '?')!r} ({domain}{node.op_type})"
