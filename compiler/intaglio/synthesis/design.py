"""What is synthesized, and for which device: the sources of an artifact or of a configuration, and a board."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from intaglio import target as targets
from intaglio.backends.fpga import rtl
from intaglio.errors import ArtifactError, InputError
from intaglio.target import FpgaTarget

TOP = "accelerator"
FLOWS = ("yosys", "nextpnr-ecp5")


@dataclass(frozen=True)
class Design:
    """SystemVerilog by name, in compilation order; the module at the top; and the board it is meant for.

    `unit`: only this module of the design and what it holds, with the parameters that it has there.
    """

    files: dict[str, str]
    top: str
    unit: str | None
    target: FpgaTarget

    @property
    def name(self) -> str:
        """The module whose resources are asked for."""
        return self.unit or self.top


def gather(
    folder: Path,
    top: str = TOP,
    unit: str | None = None,
    config: str | None = None,
    target: str | None = None,
) -> Design:
    """The design of `folder` (`rtl/*.sv`), or that of configuration `config`, which needs no such files.

    `config`: a preset, a target or a .toml file; `target`: a target or a .toml file, default: the one that `config`
    names or that the artifact was compiled for. Raises ArtifactError or InputError.
    """
    if config is None:
        files = _read(folder)
    else:
        emitted = rtl.emit(_configuration(config).accelerator)
        files = {name: emitted[name] for name in rtl.sources(emitted, "rtl")}
    return Design(files, top, unit, _board(folder, config, target))


def _read(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: there is no such folder.")
    files = {f"rtl/{path.name}": path for path in (folder / "rtl").glob("*.sv")}
    if not files:
        raise ArtifactError(
            f"{folder}: has no rtl/*.sv; expected an artifact of a target of kind fpga, or give --config."
        )
    ordered = rtl.sources(dict.fromkeys(files, ""), "rtl")
    return {name: files[name].read_text(encoding="utf-8") for name in ordered}


def _configuration(spec: str) -> FpgaTarget:
    """A configuration as a target: one without a board if it is no target's."""
    if spec in {target.name for target in targets.available()} or _is_target_file(spec):
        return _fpga(targets.find(spec), "--config")
    return FpgaTarget(name="configuration", kind="fpga", accelerator=targets.configuration(spec))


def _is_target_file(spec: str) -> bool:
    path = Path(spec)
    return spec.endswith(".toml") and path.is_file() and "kind" in path.read_text(encoding="utf-8")


def _board(folder: Path, config: str | None, target: str | None) -> FpgaTarget:
    if target is not None:
        return _fpga(targets.find(target), "--target")
    if config is not None:
        chosen = _configuration(config)
        if chosen.board.family:
            return chosen
    elif (name := _compiled_for(folder)) in {known.name for known in targets.available()}:
        return _fpga(targets.find(str(name)), str(folder))
    raise InputError(
        "--target: a board must be named, as neither the configuration nor the folder belongs to a known one; "
        "intaglio targets lists them."
    )


def _compiled_for(folder: Path) -> str | None:
    """The name of the target in the artifact's manifest; sources alone have none."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    name = manifest.get("target") if isinstance(manifest, dict) else None
    return name if isinstance(name, str) else None


def _fpga(target: targets.Target, where: str) -> FpgaTarget:
    if not isinstance(target, FpgaTarget):
        raise InputError(
            f"{where}: expected a target of kind 'fpga', not {target.name!r} of kind {target.kind!r}."
        )
    return target


def nearest(word: str, choices: Iterable[str]) -> str:
    """What to write instead of an unknown `word`."""
    names = list(choices)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(names))}."
