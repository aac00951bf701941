"""Scripts that take the HLS sources through vendor and open tools: {path: text}; running them is another step."""

from __future__ import annotations

from dataclasses import dataclass

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga import hls
from intaglio.backends.fpga.templates import banner, environment

FOLDER = "flow"
HP_PORTS = 4
"""High-performance ports between programmable logic and memory on a Zynq UltraScale+."""


@dataclass(frozen=True)
class _MemoryPort:
    """A port to external memory, and the accelerator's interfaces that share it."""

    number: int
    masters: tuple[str, ...]


def emit(config: AcceleratorConfig, part: str, board: str, clock_mhz: int) -> dict[str, str]:
    """Scripts in `flow/` that expect the sources of `hls.emit` in `hls/` beside it.

    `part`: AMD's name of the device; `board`: the board's name in Vivado's board files. Only a Zynq UltraScale+
    gets a block design (`vivado.tcl`): elsewhere the flow ends with the IP.
    """
    has_block_design = part.startswith(("xczu", "xck"))
    values = {
        "banner": banner(config),
        "part": part,
        "board": board,
        "clock_mhz": clock_mhz,
        "period_ns": f"{1000 / clock_mhz:.3f}",
        "top": hls.TOP,
        "sources": hls.sources(config),
        "test_bench": hls.TEST_BENCH,
        "memory_ports": _memory_ports(config),
        "has_block_design": has_block_design,
    }
    names = ["Makefile", "vitis_hls.tcl", *(["vivado.tcl"] if has_block_design else []), "bambu.sh"]
    return {
        f"{FOLDER}/{name}": environment().get_template(f"{FOLDER}/{name}.j2").render(values) for name in names
    }


def _memory_ports(config: AcceleratorConfig) -> list[_MemoryPort]:
    """The accelerator's AXI interfaces, dealt out in turn: weights first, as they need the most bandwidth."""
    names = [f"weights_{port}" for port in range(config.weight_ports)] + ["io", "program"]
    masters = [f"accelerator/m_axi_{name}" for name in names]
    return [
        _MemoryPort(number, tuple(masters[number::HP_PORTS])) for number in range(min(HP_PORTS, len(masters)))
    ]
