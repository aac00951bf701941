"""FPGA back end: from an integer program to an accelerator, its program and everything around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga import flow, hls, host, rtl
from intaglio.backends.fpga.build import Built, build
from intaglio.backends.fpga.compiled import CONFIG, MAP, PROGRAM, WEIGHTS, Compiled, load, result
from intaglio.program import Program
from intaglio.target import FpgaTarget

__all__ = [
    "CONFIG",
    "EMITTERS",
    "MAP",
    "PROGRAM",
    "WEIGHTS",
    "Built",
    "Compiled",
    "build",
    "compile_program",
    "emit",
    "load",
    "result",
    "target_file",
]

Files = dict[str, str | bytes]
Emitter = Callable[[Built, AcceleratorConfig, FpgaTarget], Files]


def emit(program: Program, config: AcceleratorConfig, target: FpgaTarget) -> Files:
    """The artifact's files, {relative path: text or bytes}. Raises UnsupportedError naming what does not fit."""
    built = build(program, config)
    files: Files = {}
    for emitter in EMITTERS:
        files |= emitter(built, config, target)
    return files


def compile_program(program: Program, config: AcceleratorConfig) -> Compiled:
    """`program` compiled for configuration `config`, in memory. Raises UnsupportedError naming what does not fit."""
    built = build(program, config)
    return Compiled(config, built.program, built.weights, built.comments)


def _program(built: Built, config: AcceleratorConfig, target: FpgaTarget) -> Files:
    """The program, its weights, the target with the configuration in force, and what each descriptor is for."""
    notes = [list(pair) for pair in zip(built.steps, built.comments, strict=True)]
    return {
        PROGRAM: built.program.pack(),
        WEIGHTS: built.weights,
        CONFIG: target_file(config, target),
        MAP: json.dumps(notes, indent=0) + "\n",
    }


def _rtl(_built: Built, config: AcceleratorConfig, _target: FpgaTarget) -> Files:
    return dict(rtl.emit(config))


def _hls(_built: Built, config: AcceleratorConfig, _target: FpgaTarget) -> Files:
    return dict(hls.emit(config))


def _host(_built: Built, config: AcceleratorConfig, _target: FpgaTarget) -> Files:
    return dict(host.emit(config))


def _flow(_built: Built, config: AcceleratorConfig, target: FpgaTarget) -> Files:
    """Vendor scripts, for AMD's parts: other tools do not read them."""
    if not target.board.part.startswith("xc"):
        return {}
    return dict(flow.emit(config, target.board.part, target.board.vivado_board, config.clock_mhz))


def target_file(config: AcceleratorConfig, target: FpgaTarget) -> str:
    """A target file with every value written out."""
    head = {"name": target.name, "kind": target.kind, "description": target.description}
    board = target.board.model_dump(exclude_none=True)
    return "\n".join(
        [*_pairs(head), "", "[board]", *_pairs(board), "", "[accelerator]", *_pairs(config.model_dump()), ""]
    )


def _pairs(values: Mapping[str, object]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in values.items()]


EMITTERS: list[Emitter] = [_program, _rtl, _hls, _host, _flow]
"""What an artifact is made of, in this order."""
