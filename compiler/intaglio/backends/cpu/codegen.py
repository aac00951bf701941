"""Kernels to an object file: TVM's passes, then LLVM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tvm
from tvm import tirx
from tvm.ir.transform import PassContext, Sequential

from intaglio.backends.cpu.ir import Kernel
from intaglio.backends.cpu.isa import Isa


def write_object(kernels: Mapping[str, Kernel], isa: Isa, path: Path) -> None:
    """Compile `kernels`, by symbol, into one relocatable object at `path`."""
    functions = {symbol: made.make(symbol, *made.args) for symbol, made in kernels.items()}
    # Kernels are built as scalars, vectors and one-dimensional buffers; simplification is left to LLVM. TVM's own
    # pipeline would add its packed API and its allocator, which need its runtime.
    pipeline = Sequential([tirx.transform.BindTarget(isa.target), tirx.transform.LowerIntrin()])
    with PassContext():
        lowered = pipeline(tvm.IRModule(functions))
        tvm.get_global_func("target.build.llvm")(lowered, isa.target).write_to_file(str(path), "o")
