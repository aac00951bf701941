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
    passes = tirx.transform
    # TVM's own pipeline less what builds the packed API, which needs TVM's runtime, and LowerTVMBuiltin, which
    # sends allocations to it.
    pipeline = Sequential(
        [
            passes.BindTarget(isa.target),
            passes.StmtSimplify(),
            passes.FlattenBuffer(),
            passes.NarrowDataType(32),
            passes.VectorizeLoop(True),
            passes.UnrollLoop(),
            passes.StmtSimplify(),
            passes.CommonSubexprElim(),
            passes.LowerIntrin(),
        ]
    )
    with PassContext():
        lowered = pipeline(tvm.IRModule(functions))
        tvm.get_global_func("target.build.llvm")(lowered, isa.target).write_to_file(str(path), "o")
