"""The pipeline of a target, as one literal list: reading it is reading the architecture."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import tvm

from intaglio.frontend.importer import Imported
from intaglio.passes.canonicalize import canonicalize
from intaglio.passes.check_integer import check_integer
from intaglio.passes.eliminate_common import eliminate_common
from intaglio.passes.eliminate_dead import eliminate_dead
from intaglio.passes.fold_movement import fold_movement
from intaglio.passes.fuse_linear import fuse_linear
from intaglio.passes.integer.emit import Preprocessing
from intaglio.passes.make_integer import MakeInteger
from intaglio.passes.partition_fpga import PartitionFpga
from intaglio.passes.recognise_layernorm import recognise_layernorm

Pass = Callable[[tvm.IRModule], tvm.IRModule]


def recognition() -> list[Pass]:
    """QDQ in, QDQ out: one spelling for everything."""
    return [
        canonicalize,
        recognise_layernorm,
    ]


def integer(
    imported: Imported,
    preprocessing: Preprocessing,
    nonlinear: str,
    bounds: dict[str, float] | None = None,
) -> list[Pass]:
    """From the importer's QDQ graph to integer ops, for every target (`cpu`, `c`, `null`, `fpga`)."""
    return [
        *recognition(),
        MakeInteger(
            imported.provenance, imported.nodes, preprocessing, nonlinear, {} if bounds is None else bounds
        ),
        eliminate_common,
        fold_movement,
        eliminate_common,
        eliminate_dead,
        fuse_linear,
        eliminate_dead,
        check_integer,
    ]


def fpga(
    imported: Imported,
    preprocessing: Preprocessing,
    nonlinear: str,
    bounds: dict[str, float] | None = None,
) -> list[Pass]:
    """Integer ops that all run on the accelerator."""
    return [
        *integer(imported, preprocessing, nonlinear, bounds),
        PartitionFpga(imported.nodes),
    ]


def run(
    module: tvm.IRModule,
    passes: list[Pass],
    dump: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tvm.IRModule:
    """Apply `passes` in order; with `dump`, write the module after each one as `NN_name.py`."""
    if dump is not None:
        _dump(module, dump, 0, "import")
    for index, step in enumerate(passes, 1):
        name = pass_name(step)
        progress(name)
        module = step(module)
        if dump is not None:
            _dump(module, dump, index, name)
    return module


def pass_name(step: Pass) -> str:
    """The name of a pass: its file's."""
    return type(step).__module__.rpartition(".")[2] if not hasattr(step, "__name__") else str(step.__name__)


def _dump(module: tvm.IRModule, folder: Path, index: int, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        text = module.script(show_meta=False)
    (folder / f"{index:02d}_{name}.py").write_text(text)
