"""The accelerator as SystemVerilog: configuration in, {path: text} out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intaglio.accelerator import descriptors, registers
from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import COMMON, KINDS, UNITS, Field, unit_words
from intaglio.accelerator.sizes import Size, sizes
from intaglio.backends.fpga.templates import banner, environment

FOLDERS = ("rtl", "sim")
"""Template folders: the accelerator, and what only a simulation needs."""


@dataclass(frozen=True)
class _Function:
    """One field of a descriptor, as the package's function that extracts it."""

    name: str
    range: str
    value: str


def emit(config: AcceleratorConfig) -> dict[str, str]:
    """The sources of the accelerator (`rtl/`) and of its test bench (`sim/`)."""
    values = _values(config)
    jinja = environment()
    names = [name for name in jinja.list_templates(extensions=["j2"]) if name.startswith(FOLDERS)]
    return {name.removesuffix(".j2"): jinja.get_template(name).render(values) for name in names}


def sources(files: dict[str, str], folder: str = "rtl") -> list[str]:
    """The SystemVerilog files of one folder in compilation order: the package first."""
    names = sorted(name for name in files if name.startswith(f"{folder}/") and name.endswith(".sv"))
    return sorted(names, key=lambda name: not name.endswith("_pkg.sv"))


def _values(config: AcceleratorConfig) -> dict[str, Any]:
    return {
        "banner": banner(config),
        "config": config,
        "sizes": [*sizes(config), *_ports(config)],
        "config_hash": config.hash,
        "magic": registers.MAGIC,
        "version": descriptors.FORMAT_VERSION,
        "units": UNITS,
        "unit_words": [unit_words(unit, config.experts > 0) for unit in UNITS],
        "kinds": KINDS,
        "errors": list(registers.ERRORS.items()),
        "counters": registers.COUNTERS,
        "counter_base": registers.COUNTER_BASE,
        "registers": [(name, offset) for name, (offset, _, _) in registers.REGISTERS.items()],
        "functions": _functions(),
    }


def _ports(config: AcceleratorConfig) -> list[Size]:
    """What only the RTL has to know: the shape of its ports and of its multipliers."""
    return [
        ("WEIGHT_PORTS", config.weight_ports, ""),
        ("BEAT_BITS", config.axi_bits, "width of every AXI data port"),
        ("ADDR_BITS", 40, "AXI addresses"),
        ("DSP48E2", int(config.multiplier == "dsp48e2"), "1: the array is made of packed DSP48E2 cascades"),
    ]


def _functions() -> list[_Function]:
    common = [_function("DESC", entry) for entry in COMMON]
    return common + [_function(kind.name, entry) for kind in KINDS for entry in kind.fields]


def _function(prefix: str, entry: Field) -> _Function:
    sign = "signed " if entry.signed else ""
    extent = f"{sign}[{entry.width - 1}:0]" if entry.width > 1 else sign.strip()
    if entry.width > 32:
        value = f"{{d[{entry.word + 1}], d[{entry.word}]}}"
    elif entry.width == 1:
        value = f"d[{entry.word}][{entry.lsb}]"
    else:
        value = f"d[{entry.word}][{entry.lsb + entry.width - 1}:{entry.lsb}]"
    return _Function(f"{prefix}_{entry.name}", extent, value)
