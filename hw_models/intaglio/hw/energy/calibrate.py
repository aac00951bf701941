"""Coefficients of the energy model: linear regression of measured board power, with a prior for every coefficient.

Power is linear in the coefficients, so the posterior of a Gaussian prior is Gaussian in closed form; its covariance
gives the band of a prediction, and few measurements suffice where the prior knows something.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
COEFFICIENTS = FOLDER / "coefficients.json"

NOISE = 0.12
"""Standard deviation of a measurement relative to it: methods differ, and a design's data is partly estimated."""

ACCESSES = 0.5
"""Accesses per cycle of a published design's block RAM."""

FABRIC = {"zu9eg": 1.0, "u280": 4.76}
"""Fabric relative to a ZU9EG (274,080 LUTs) of the devices in boards.toml."""

CARDS = ("u280",)
"""Devices on accelerator cards with HBM; the others are Zynq with DDR."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """What is known of a coefficient before measurements."""

    name: str
    unit: str
    mean: float
    deviation: float
    source: str


@dataclass(frozen=True)
class Coefficients:
    """Posterior of the coefficients `names`: mean [n], covariance [n, n].

    `error`: leave-one-out error of designs measured at the chip, relative, rms.
    """

    names: tuple[str, ...]
    mean: Vector
    covariance: Vector
    error: float

    def __getitem__(self, name: str) -> float:
        return float(self.mean[self.names.index(name)])

    def power(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Watts of a design with these features (amounts per second, in units of the coefficients), and a deviation.

        The deviation joins that of the coefficients with the leave-one-out error, which stands for what a linear
        model leaves out.
        """
        x = np.array([features.get(name, 0.0) for name in self.names])
        watts = float(x @ self.mean)
        return watts, float(np.sqrt(x @ self.covariance @ x + (self.error * watts) ** 2))


@dataclass(frozen=True)
class LeftOut:
    """One measurement, and what the model says of it when calibrated on the others."""

    name: str
    scope: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def priors() -> list[Prior]:
    """The coefficients, in order."""
    values = tomllib.loads((FOLDER / "priors.toml").read_text(encoding="utf-8"))
    return [Prior(name, **entry) for name, entry in values.items()]


def designs() -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The measurements, and the relative energy of their products."""
    values = tomllib.loads((FOLDER / "boards.toml").read_text(encoding="utf-8"))
    return values["design"], values["product"]


def features(design: Mapping[str, Any], product: Mapping[str, float]) -> dict[str, float]:
    """Amounts per second of a published design, such that power in watts is their sum times the coefficients."""
    card = design["device"] in CARDS
    hertz = design["mhz"] * 1e6
    traffic = 8 * design["memory_bytes"] * design["fps"] * 1e-12
    return {
        "device_watts": FABRIC[design["device"]],
        "card_watts" if card else "soc_watts": 1.0,
        "board_watts": float(design["scope"] == "board"),
        "product_pj": design["macs"] * design["fps"] * product[design["product"]] * 1e-12,
        "logic_pj": design["kluts"] * 1e3 * hertz * 1e-12,
        "sram_pj": design["bram36"] * hertz * ACCESSES * 1e-12,
        "hbm_pj_bit" if card else "dram_pj_bit": traffic,
    }


def fit(
    rows: Sequence[Mapping[str, float]], watts: Sequence[float], known: Sequence[Prior]
) -> tuple[Vector, Vector]:
    """Posterior mean and covariance of the coefficients, from the features and watts of measurements."""
    x = np.array([[row.get(prior.name, 0.0) for prior in known] for row in rows]).reshape(
        len(rows), len(known)
    )
    y = np.asarray(watts, np.float64)
    weight = 1 / (NOISE * y) ** 2
    precision = np.diag([prior.deviation**-2 for prior in known])
    mean = np.array([prior.mean for prior in known])
    covariance = np.linalg.inv(precision + (x.T * weight) @ x)
    return covariance @ (precision @ mean + (x.T * weight) @ y), covariance


def leave_one_out() -> list[LeftOut]:
    """Every measurement, predicted from the others."""
    measured, product = designs()
    known = priors()
    rows = [features(design, product) for design in measured]
    watts = [float(design["watts"]) for design in measured]
    result = []
    for i, design in enumerate(measured):
        mean, _ = fit(rows[:i] + rows[i + 1 :], watts[:i] + watts[i + 1 :], known)
        predicted = sum(rows[i].get(p.name, 0.0) * m for p, m in zip(known, mean, strict=True))
        result.append(LeftOut(design["name"], design["scope"], watts[i], float(predicted)))
    return result


def calibrate() -> Coefficients:
    """The coefficients, from all measurements."""
    measured, product = designs()
    known = priors()
    mean, covariance = fit(
        [features(design, product) for design in measured], [float(d["watts"]) for d in measured], known
    )
    return Coefficients(tuple(p.name for p in known), mean, covariance, rms(leave_one_out(), "chip"))


def rms(results: Sequence[LeftOut], scope: str) -> float:
    """Relative error of the predictions of one scope."""
    return float(np.sqrt(np.mean([left.error**2 for left in results if left.scope == scope])))


def save(coefficients: Coefficients, path: Path = COEFFICIENTS) -> None:
    """Write `coefficients` where `load` finds them."""
    values = {
        "made_by": "python benchmarks/energy.py",
        "names": list(coefficients.names),
        "mean": [float(f"{v:.6g}") for v in coefficients.mean],
        "covariance": [[float(f"{v:.6g}") for v in row] for row in coefficients.covariance],
        "leave_one_out_error": float(f"{coefficients.error:.4g}"),
    }
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


@cache
def load(path: Path = COEFFICIENTS) -> Coefficients:
    """The coefficients in the repository."""
    values = json.loads(path.read_text(encoding="utf-8"))
    mean, covariance = np.array(values["mean"]), np.array(values["covariance"])
    return Coefficients(tuple(values["names"]), mean, covariance, values["leave_one_out_error"])
