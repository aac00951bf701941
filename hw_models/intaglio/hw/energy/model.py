"""From actions and time to joules, by component, with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from intaglio.hw.energy.actions import Actions
from intaglio.hw.energy.calibrate import Coefficients, load

FABRIC_LUTS = 274_080
"""LUTs of the device whose static power is the unit: ZU9EG."""

WORD = 9.0
"""Bytes of one BRAM36 access."""

NINETY = 1.645
"""Standard deviations to either side that hold 90 % of a normal distribution."""

NODES = {"ultrascale+": 1.0, "versal": 0.6, "7-series": 2.2, "ecp5": 3.5}
"""Energy of an action relative to 16 nm: 7, 28 and 40 nm. Only 16 nm is calibrated; the others are assumed."""

SCALED = 0.3
"""Relative deviation that is added where a node was not calibrated."""

REQUANTIZE = 32 * 26 / (8 * 8)
"""int8 products that one requantized result costs: a product of 32 x 26 bits, in area."""

HOSTS = {"zynq": "soc_watts", "card": "card_watts", "none": ""}


@dataclass(frozen=True)
class Device:
    """What of a board counts. `host`: what is beside the fabric on the chip or card; `luts`: of the device."""

    family: str
    luts: int
    host: Literal["zynq", "card", "none"]
    memory: Literal["ddr", "hbm"] = "ddr"

    @property
    def calibrated(self) -> bool:
        return self.family == "ultrascale+"

    @property
    def node(self) -> float:
        return NODES[self.family]


@dataclass(frozen=True)
class Energy:
    """Millijoules of one frame.

    `low`, `high`: 90 % band; `components` sum to `total`; `descriptors`: what their actions take, in program order.
    """

    total: float
    low: float
    high: float
    watts: float
    components: dict[str, float]
    descriptors: list[float]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "energy_mj": self.total,
            "energy_band_mj": [self.low, self.high],
            "power_w": self.watts,
            "components_mj": self.components,
            "notes": list(self.notes),
        }


def estimate(
    actions: Sequence[Actions],
    seconds: float,
    mhz: float,
    luts: float,
    device: Device,
    coefficients: Coefficients | None = None,
) -> Energy:
    """Energy of a run that does `actions` in `seconds`, on a design of `luts` LUTs clocked with `mhz`: modelled."""
    known = coefficients or load()
    if device.family not in NODES:
        raise ValueError(
            f"device family {device.family!r} is unknown to the energy model; known are {', '.join(NODES)}."
        )
    total = sum(actions, Actions())
    amounts = _amounts(total, device)
    clocked = luts * mhz * 1e6 * 1e-12 * device.node * seconds
    features = amounts | {"logic_pj": clocked, "device_watts": device.luts / FABRIC_LUTS * seconds}
    if HOSTS[device.host]:
        features[HOSTS[device.host]] = seconds
    joules, deviation = known.power(features)
    if not device.calibrated:
        deviation = float((deviation**2 + (SCALED * joules) ** 2) ** 0.5)
    mj = {_COMPONENTS[name]: 1e3 * known[name] * amount for name, amount in features.items()}
    each = [sum(of_actions(a, device, known).values()) for a in actions]
    low = max(joules - NINETY * deviation, 0.0)
    return Energy(
        1e3 * joules,
        1e3 * low,
        1e3 * (joules + NINETY * deviation),
        joules / seconds,
        mj,
        each,
        _notes(device, known),
    )


def of_actions(
    actions: Actions, device: Device, coefficients: Coefficients | None = None
) -> dict[str, float]:
    """Millijoules by component that actions take, without what goes by time."""
    known = coefficients or load()
    return {_COMPONENTS[name]: 1e3 * known[name] * v for name, v in _amounts(actions, device).items()}


_COMPONENTS = {
    "product_pj": "arithmetic",
    "sram_pj": "on-chip memory",
    "dram_pj_bit": "external memory",
    "hbm_pj_bit": "external memory",
    "logic_pj": "clock and logic",
    "device_watts": "static",
    "soc_watts": "processors and memory controller",
    "card_watts": "card",
}


def _amounts(a: Actions, device: Device) -> dict[str, float]:
    """Actions times 1e-12, in the units of the coefficients: pJ become J."""
    onchip = (a.scratchpad + a.weight_buffer + a.tables) / WORD
    return {
        "product_pj": (a.products + REQUANTIZE * a.results) * device.node * 1e-12,
        "sram_pj": onchip * device.node * 1e-12,
        "hbm_pj_bit" if device.memory == "hbm" else "dram_pj_bit": 8 * a.memory * 1e-12,
    }


def _notes(device: Device, known: Coefficients) -> tuple[str, ...]:
    notes = [
        f"Power of chip and memory, not of the board. Leave-one-out error of the calibration: {known.error:.0%} (rms).",
        "Band: 90 %.",
    ]
    if not device.calibrated:
        notes.append(
            f"Family {device.family} was not calibrated: 16 nm times {device.node:g} (assumed), a wider band."
        )
    return tuple(notes)
