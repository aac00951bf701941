"""A model compiled for an accelerator, as far as the models need it: descriptors and ops, no weights. Kept in a cache.

The front end takes longer than all models together; weights do not change what they say. Back end and front end are
imported only where they are needed: to import them takes as long as to answer from the cache.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intaglio import whole_file
from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor, ProgramFile
from intaglio.artifact import Artifact, file_sha256
from intaglio.inspection import OpSummary, summarize
from intaglio.program import Program
from intaglio.target import FpgaTarget

if TYPE_CHECKING:
    from intaglio.backends.fpga.graph import Graph

Progress = Callable[[str], None]

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Compiled:
    """`steps`: the program's step of every descriptor; `cached`: whether it was compiled before."""

    name: str
    config: AcceleratorConfig
    descriptors: Sequence[Descriptor]
    steps: Sequence[str]
    ops: Sequence[OpSummary]
    cached: bool = False


def of_artifact(artifact: Artifact, config: AcceleratorConfig | None = None) -> Compiled:
    """A compiled model from its folder; for another configuration than it was compiled for, scheduled again.

    Raises ArtifactError if it is none for an FPGA and no `config` is given, UnsupportedError if it does not fit.
    """
    if config is not None:
        return of_program(artifact.program, config)
    from intaglio.backends import fpga

    found = fpga.load(artifact)
    steps = [step for step, _ in json.loads(artifact.file(fpga.MAP).read_text())]
    ops = summarize(artifact.program).ops
    return Compiled(artifact.manifest.source.name, found.config, found.program.descriptors, steps, ops)


def of_program(program: Program, config: AcceleratorConfig) -> Compiled:
    """`program` scheduled for a configuration. Raises UnsupportedError if it does not fit."""
    from intaglio.backends.fpga.trace import trace

    return of_graph(program.name, trace(program), config, summarize(program).ops)


def of_graph(name: str, graph: Graph, config: AcceleratorConfig, ops: Sequence[OpSummary] = ()) -> Compiled:
    """A traced program as `compile` schedules it, without the proof that the schedule has no race."""
    from intaglio.backends.fpga.fit import fit
    from intaglio.backends.fpga.schedule import schedule

    nodes = schedule(fit(graph, config), config).nodes
    descriptors = [Descriptor(node.kind, node.fields, node.waits) for node in nodes]
    return Compiled(name, config, descriptors, [node.step for node in nodes], ops)


def compiled_model(path: Path, target: FpgaTarget, progress: Progress = lambda _: None) -> Compiled:
    """The ONNX model at `path` compiled for a target's accelerator, from the cache if it was before.

    Raises ModelError, UnsupportedError or CalibrationError with one sentence.
    """
    file = _cache_file(path, target) if path.is_file() else None
    found = _read(file, target.accelerator) if file is not None else None
    if found is not None:
        return found
    from intaglio.compiler import to_program

    program = to_program(path, progress=progress, target=target)
    progress("schedule")
    compiled = of_program(program, target.accelerator)
    if file is not None:
        _write(file, compiled)
    return compiled


# --- cache ----------------------------------------------------------------------------------------------------------


def _cache_file(path: Path, target: FpgaTarget) -> str:
    """Named after all that the descriptors depend on: the model, its name, the configuration and the compiler."""
    parts = [file_sha256(path), path.stem, target.accelerator.model_dump_json(), compiler_state()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
    return f"estimate-{key}.json"


def compiler_state() -> str:
    """Changes with every source file of the compiler."""
    state = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        status = path.stat()
        state.update(f"{path.relative_to(PACKAGE)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _read(file: str, config: AcceleratorConfig) -> Compiled | None:
    """What the cache holds; None if it holds nothing that can be read."""
    known = whole_file.kept(file)
    if known is None:
        return None
    try:
        record = json.loads(known)
        program = ProgramFile.unpack(zlib.decompress(base64.b64decode(record["program"])))
        ops = [OpSummary(**op) for op in record["ops"]]
        return Compiled(record["name"], config, program.descriptors, record["steps"], ops, cached=True)
    except (ValueError, KeyError, TypeError, zlib.error):
        return None


def _write(file: str, compiled: Compiled) -> None:
    program = ProgramFile(compiled.config.hash, 0, 0, 0, compiled.descriptors).pack()
    record: dict[str, Any] = {
        "name": compiled.name,
        "program": base64.b64encode(zlib.compress(program)).decode(),
        "steps": list(compiled.steps),
        "ops": [asdict(op) for op in compiled.ops],
    }
    whole_file.keep(file, json.dumps(record))
