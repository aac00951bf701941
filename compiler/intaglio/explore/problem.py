"""What is searched: a model, a board, limits, and what counts as better; and one configuration with its figures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.errors import InputError
from intaglio.estimate.compiled import compiler_state
from intaglio.program import Program
from intaglio.simulation.frame import MemoryModel
from intaglio.target import Board, FpgaTarget
from intaglio.use import BOARD, NAMES

Objective = Literal["latency", "energy", "edp"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "energy", "edp")

Stage = Literal["fast", "exact"]


@dataclass(frozen=True)
class Budget:
    """The most of every resource that a configuration may take; what is not named is not limited."""

    limits: Mapping[str, float]

    def allows(self, used: Mapping[str, float]) -> bool:
        return all(used[name] <= limit for name, limit in self.limits.items())

    def share(self, used: Mapping[str, float]) -> float:
        """Of the resource that comes closest to its limit."""
        return max((used[name] / limit for name, limit in self.limits.items() if limit), default=0.0)


def budget(board: Board, given: str = "") -> Budget:
    """What a board has, and less where `given` says so: "dsp=2000,lut=70%". Raises InputError with one sentence."""
    there = {name: getattr(board, key) for name, key in BOARD.items()}
    limits = {name: float(amount) for name, amount in there.items() if amount is not None}
    for part in filter(None, given.split(",")):
        name, _, amount = part.partition("=")
        limits[name] = _limit(name, amount, limits.get(name))
    return Budget(limits)


def _limit(name: str, amount: str, there: float | None) -> float:
    if name not in NAMES:
        raise InputError(f"--budget: {name!r} is no resource; known are {', '.join(NAMES)}.")
    try:
        value = float(amount.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError(
            f"--budget: {name} must be a number or a percentage, as dsp=2000 or lut=70%, not {amount!r}."
        )
    if not amount.endswith("%"):
        if there is not None and value > there:
            raise InputError(f"--budget: {name}={amount} is more than the {there:g} that the board has.")
        return value
    if there is None:
        raise InputError(f"--budget: {name} is a percentage, but the target does not say how many there are.")
    if value > 100:
        raise InputError(f"--budget: {name}={amount} is more than the board has.")
    return there * value / 100


@dataclass(frozen=True)
class Problem:
    """A search; it travels to other processes and machines as it is."""

    program: Program
    target: FpgaTarget
    memory: MemoryModel
    budget: Budget

    @property
    def key(self) -> str:
        """Changes with all that the figures depend on; the budget and the objective only choose among them."""
        state = hashlib.sha256()
        for step in self.program.steps:
            state.update(repr((step.name, step.op, step.inputs, sorted(step.attrs.items()))).encode())
        for tensor in self.program.tensors.values():
            state.update(repr((tensor.name, tensor.shape, tensor.dtype)).encode())
        parts = [self.target.model_dump_json(), repr(self.memory), compiler_state()]
        state.update("\n".join(parts).encode())
        return state.hexdigest()[:24]


@dataclass(frozen=True)
class Point:
    """A configuration and its figures. `stage`: by which model; `reason`: why it cannot run the model, if so."""

    config: AcceleratorConfig
    stage: Stage
    cycles: float = 0.0
    latency_ms: float = 0.0
    energy_mj: float = 0.0
    energy_band_mj: tuple[float, float] = (0.0, 0.0)
    resources: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    def value(self, objective: Objective) -> float:
        """The lower the better."""
        return {
            "latency": self.latency_ms,
            "energy": self.energy_mj,
            "edp": self.energy_mj * self.latency_ms,
        }[objective]

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "config": self.config.model_dump(),
            "energy_band_mj": list(self.energy_band_mj),
        }

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Point:
        """Raises ValueError, TypeError or KeyError where it is not what `as_json` made."""
        config = AcceleratorConfig.model_validate(values["config"])
        low, high = values["energy_band_mj"]
        return cls(**{**values, "config": config, "energy_band_mj": (low, high)})
