"""Back ends: from one integer program to code that runs somewhere."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata

import numpy as np

from intaglio.program import Program


def generator() -> str:
    """Name and version of the compiler, as generated files state it."""
    try:
        return f"intaglio {metadata.version('intaglio')}"
    except metadata.PackageNotFoundError:
        return "intaglio (not installed)"


def program_hash(program: Program) -> str:
    """SHA-256, in hexadecimal, of everything that determines the program's results (names included)."""
    tensors = [
        [t.name, list(t.shape), t.dtype, t.scale if t.scale is None else float(t.scale), int(t.zero_point)]
        for t in program.tensors.values()
    ]
    steps = [[s.name, s.op, s.inputs, s.output, dict(s.attrs), s.onnx_nodes] for s in program.steps]
    graph: list[object] = [program.name, program.input, program.output, tensors, steps]
    if program.task is not None:
        graph.append(program.task)
    digest = hashlib.sha256(json.dumps(graph, sort_keys=True, default=_plain).encode())
    for tensor in program.tensors.values():
        if tensor.data is not None:
            little_endian = tensor.data.dtype.newbyteorder("<")
            digest.update(np.ascontiguousarray(tensor.data, little_endian).data)
    return digest.hexdigest()


def _plain(value: object) -> object:
    """NumPy scalars and arrays in attributes, as Python's own."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"an attribute must hold integers, strings and lists, not {value!r}")
