"""What a netlist's cells occupy: the rules by which LUTs, flip-flops, DSPs and memory blocks are counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Resources:
    """Amounts of a device. `lut` is the sum of logic, RAM, shift registers and (ECP5) carry chains.

    `bram36`: a RAMB18 or an ECP5 EBR (18 kbit) is half of one. `muxes` (MUXF7 .. F9, or PFUMX, L6MUX21) and `carry`
    (CARRY4/8; CCU2C) come with the LUTs that they are wired to. `other`: cells that no rule counts, by type.
    """

    dsp: int = 0
    bram36: float = 0
    uram: int = 0
    lut: int = 0
    ff: int = 0
    lut_logic: int = 0
    lut_ram: int = 0
    lut_shift: int = 0
    lut_carry: int = 0
    carry: int = 0
    muxes: int = 0
    other: dict[str, int] = field(default_factory=dict)

    def plus(self, more: Resources, times: int = 1) -> Resources:
        """The sum of these and `times` times `more`."""
        other = dict(self.other)
        for name, number in more.other.items():
            other[name] = other.get(name, 0) + times * number
        amounts = {name: getattr(self, name) + times * getattr(more, name) for name in AMOUNTS}
        return Resources(**amounts, other=other)

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in AMOUNTS} | {"other": self.other}


AMOUNTS = tuple(entry.name for entry in fields(Resources) if entry.name != "other")

Rules = Mapping[str, Mapping[str, float]]
"""Cell type -> what one of them occupies. An empty mapping: nothing (constants, pads)."""


def _lut(kind: str, luts: int, *types: str) -> dict[str, dict[str, float]]:
    return {cell: {"lut": luts, f"lut_{kind}": luts} for cell in types}


def _one(kind: str, *types: str) -> dict[str, dict[str, float]]:
    return {cell: {kind: 1} for cell in types}


XILINX: Rules = {
    # Two LUT5 of the same inputs may share a LUT6: counted apart. A vendor's tool absorbs inverters: counted too.
    **_lut("logic", 1, "LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "INV"),
    # RAM in LUTs: 64 bits a LUT and port; a quad port RAM is four, its write port shared.
    **_lut("ram", 1, "RAM32X1S", "RAM64X1S"),
    **_lut("ram", 2, "RAM32X1D", "RAM64X1D", "RAM128X1S"),
    **_lut("ram", 4, "RAM32M", "RAM64M", "RAM128X1D", "RAM256X1S"),
    **_lut("ram", 8, "RAM32M16", "RAM64M8", "RAM256X1D", "RAM512X1S", "RAM64X8SW"),
    # Two SRL16 may share a LUT: counted apart.
    **_lut("shift", 1, "SRL16", "SRL16E", "SRLC16", "SRLC16E", "SRLC32E"),
    **_one("ff", "FDRE", "FDSE", "FDCE", "FDPE", "FDRE_1", "FDSE_1", "FDCE_1", "FDPE_1", "LDCE", "LDPE"),
    **_one("dsp", "DSP48E1", "DSP48E2"),
    **_one("muxes", "MUXF7", "MUXF8", "MUXF9"),
    **_one("carry", "CARRY4", "CARRY8"),
    **_one("bram36", "RAMB36E1", "RAMB36E2"),
    **{cell: {"bram36": 0.5} for cell in ("RAMB18E1", "RAMB18E2")},
    **_one("uram", "URAM288", "URAM288_BASE"),
    "VCC": {},
    "GND": {},
    "BUFG": {},
    "IBUF": {},
    "OBUF": {},
}

ECP5: Rules = {
    **_lut("logic", 1, "LUT4"),
    # 16 x 4 bits: four LUTs hold them, two more carry the write port.
    **_lut("ram", 6, "TRELLIS_DPR16X4"),
    "CCU2C": {"lut": 2, "lut_carry": 2, "carry": 1},
    **_one("ff", "TRELLIS_FF"),
    **_one("dsp", "MULT18X18D", "MULT18X18C"),
    **_one("muxes", "PFUMX", "L6MUX21"),
    **{cell: {"bram36": 0.5} for cell in ("DP16KD", "PDPW16KD")},
    "VHI": {},
    "VLO": {},
}


def count(cells: Mapping[str, int], rules: Rules) -> Resources:
    """What `cells` (type -> number) occupy."""
    amounts: dict[str, float] = dict.fromkeys(AMOUNTS, 0)
    other = {}
    for cell, number in cells.items():
        rule = rules.get(cell)
        if rule is None:
            other[cell] = number
            continue
        for kind, each in rule.items():
            amounts[kind] += each * number
    whole = {name: value if name == "bram36" else int(value) for name, value in amounts.items()}
    return Resources(**whole, other=other)  # type: ignore[arg-type]
