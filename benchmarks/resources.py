"""Fits the resource model to Yosys' counts, and compares it with whole designs (docs/models.md).

    python benchmarks/resources.py FOLDER                fit to the counts in FOLDER, compare, write the package's files
    python benchmarks/resources.py FOLDER --synthesize   first synthesize the configurations that FOLDER lacks

FOLDER holds what `intaglio synthesize --flow yosys --json` prints, one file per configuration and family:
NAME.FAMILY.json. Modules that were synthesized before come from the cache. A fit is least squares of relative errors,
coefficients not negative; errors are also given of a fit that has not seen the configuration.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio import synthesis
from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.backends.fpga import rtl
from intaglio.hw import resources
from intaglio.hw.resources import fabric
from intaglio.hw.resources.memories import mapped, memories
from intaglio.target import FpgaTarget, find

PACKAGE = Path(resources.__file__).parent
BOARDS = {"ultrascale+": "zcu102", "7-series": "arty-a7", "ecp5": "ulx3s"}
ARRAY = ("mac_array", "mac_chain")
"""Modules that differ by the multiplier."""
KINDS = ("dsp", "bram36", "lut", "ff")

SMALL = {"weight_entries": 512, "a_words": 1024, "x_words": 512, "param_groups": 128, "norm_channels": 256}


def _small(rows: int, cols: int, depth: int, **more: Any) -> AcceleratorConfig:
    return AcceleratorConfig(rows=rows, cols=cols, depth=depth, **(SMALL | more))  # type: ignore[arg-type]


def _of(name: str) -> AcceleratorConfig:
    target = find(name)
    assert isinstance(target, FpgaTarget)
    return target.accelerator


CONFIGURATIONS: dict[str, tuple[AcceleratorConfig, tuple[str, ...]]] = {
    "tiny": (PRESETS["tiny"], ("ultrascale+", "ecp5")),
    "ecp5": (PRESETS["ecp5"], ("ecp5", "ultrascale+")),
    "ulx3s": (_of("ulx3s"), ("ecp5",)),
    "1x8x8 routed": (
        _small(1, 8, 8, max_keys=64, experts=16, weight_ports=1, multiplier="generic"),
        ("ecp5",),
    ),
    "1x16x8": (
        _small(
            1, 16, 8, max_keys=64, experts=0, weight_ports=2, multiplier="generic", burst=8, outstanding=4
        ),
        ("ecp5",),
    ),
    "2x8x8": (_small(2, 8, 8, max_keys=64, experts=4, weight_ports=1, multiplier="generic"), ("ecp5",)),
    "1x16x16": (
        _small(1, 16, 16, max_keys=128, experts=8, weight_ports=2, multiplier="generic"),
        ("ecp5", "ultrascale+", "7-series"),
    ),
    "2x24x8": (
        _small(2, 24, 8, max_keys=120, experts=0, weight_ports=1, multiplier="generic"),
        ("ecp5", "7-series"),
    ),
    "1x8x8 packed": (_small(1, 8, 8, max_keys=64, experts=4, weight_ports=1), ("ultrascale+",)),
    "8x16x8 packed": (
        _small(8, 16, 8, experts=16, weight_ports=2, table_slots=2, burst=8, outstanding=4),
        ("ultrascale+",),
    ),
    "arty-a7": (_of("arty-a7"), ("7-series",)),
    "ultra96v2": (_of("ultra96v2"), ("ultrascale+",)),
    "large": (PRESETS["large"], ("ultrascale+",)),
    "zcu102": (_of("zcu102"), ("ultrascale+",)),
}

Count = dict[str, float]
"""LUT without memories, and FF."""


@dataclass(frozen=True)
class Sample:
    """What Yosys counted: in all, and per module (all instances of it together)."""

    name: str
    family: str
    config: AcceleratorConfig
    total: dict[str, float]
    modules: dict[str, Count]
    tool: str

    @property
    def held(self) -> fabric.Held:
        return [(memory, mapped(memory, self.family)) for memory in memories(self.config)]


def read(name: str, family: str, config: AcceleratorConfig, path: Path) -> Sample:
    report = json.loads(path.read_text(encoding="utf-8"))
    modules: dict[str, Count] = defaultdict(lambda: {"lut": 0, "ff": 0})
    for module in report["modules"]:
        own, base = module["own"], re.sub(r"_\d+$", "", module["name"])
        count = modules[f"{base} {config.multiplier}" if base in ARRAY else base]
        count["lut"] += module["instances"] * (own["lut"] - own["lut_ram"])
        count["ff"] += module["instances"] * own["ff"]
    total = report["resources"]
    sample = Sample(
        name, family, config, {kind: total[kind] for kind in KINDS}, dict(modules), report["tool"]
    )
    _same_memories(sample, report)
    return sample


def _same_memories(sample: Sample, report: dict[str, Any]) -> None:
    """The model must know every memory of the design, and the LUTs that hold them."""
    counted: Counter[tuple[int, int]] = Counter()
    for module in report["modules"]:
        for memory in module["memories"]:
            counted[memory["words"], memory["width"]] += module["instances"]
    modelled: Counter[tuple[int, int]] = Counter()
    for known, _ in sample.held:
        modelled[known.words, known.bits] += known.number
    assert counted == modelled, f"{sample.name}: lacks {counted - modelled}, has no {modelled - counted}"
    spread = sum(memory.number * cells.lut for memory, cells in sample.held)
    assert spread == report["resources"]["lut_ram"], (
        f"{sample.name}, {sample.family}: {spread} LUTs hold memories"
    )


def fit(samples: list[Sample], shapes: dict[str, fabric.Coefficients]) -> dict[str, fabric.Coefficients]:
    """By module: coefficients of its terms for LUT and FF.

    A module of which there are fewer samples than terms takes its formula from `shapes`, where it is known there, times
    one fitted factor.
    """
    result: dict[str, fabric.Coefficients] = {}
    for module in sorted({name for sample in samples for name in sample.modules}):
        names = fabric.MODULES[module.split()[0]]
        having = [sample for sample in samples if module in sample.modules]
        sizes = [fabric.terms(sample.config, sample.held) for sample in having]
        rows = np.array([[size[name] for name in names] for size in sizes], dtype=np.float64)
        result[module] = {}
        for kind in ("lut", "ff"):
            values = np.array([sample.modules[module][kind] for sample in having], dtype=np.float64)
            shape = np.array([shapes.get(module, {}).get(kind, {}).get(name, 0) for name in names])
            if len(having) < len(names) and (rows @ shape).min() > 0:
                found = shape * non_negative((rows @ shape)[:, None], values)
            else:
                found = non_negative(rows, values)
            result[module][kind] = {
                n: round(float(v), 4) for n, v in zip(names, found, strict=True) if v > 1e-6
            }
    return result


def non_negative(rows: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients of least relative squared error (of several, the smallest); none is negative."""
    scale = np.maximum(rows.max(axis=0), 1)
    weights = 1 / np.maximum(values, 0.01 * max(values.max(), 1))
    a = rows / scale * weights[:, None]
    kept = list(np.flatnonzero(rows.max(axis=0) > 0))
    result = np.zeros(rows.shape[1])
    while kept:
        found = np.linalg.lstsq(a[:, kept], values * weights, rcond=1e-9)[0]
        if found.min() >= 0:
            result[kept] = found / scale[kept]
            break
        # The most negative goes, and the others are fitted anew.
        del kept[int(found.argmin())]
    return result


def predict(sample: Sample, known: dict[str, fabric.Coefficients]) -> Count:
    """LUT and FF in all. A module that no coefficients are known of counts nothing."""
    sizes = fabric.terms(sample.config, sample.held)
    total = {"lut": float(sum(memory.number * cells.lut for memory, cells in sample.held)), "ff": 0.0}
    for module in sample.modules:
        for kind, of_terms in known.get(module, {}).items():
            total[kind] += sum(value * sizes[term] for term, value in of_terms.items())
    return total


@dataclass(frozen=True)
class Comparison:
    """One configuration: Yosys' amounts, the model's, and those of a fit that has not seen it (LUT and FF)."""

    sample: Sample
    model: dict[str, float]
    unseen: Count | None

    def error(self, kind: str) -> float:
        return self.model[kind] / self.sample.total[kind] - 1

    def unseen_error(self, kind: str) -> float | None:
        return None if self.unseen is None else self.unseen[kind] / self.sample.total[kind] - 1

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.sample.name,
            "family": self.sample.family,
            "configuration": self.sample.config.model_dump(),
            "yosys": self.sample.total,
            "model": self.model,
            "error": {kind: self.error(kind) for kind in KINDS},
            "unseen_error": {kind: self.unseen_error(kind) for kind in ("lut", "ff")},
        }


SHAPES = "ecp5"
"""The family of most samples."""


def compare(samples: list[Sample], shapes: dict[str, fabric.Coefficients]) -> list[Comparison]:
    """The model as the package has it now, and for each configuration a fit to all others."""
    found = []
    for sample in samples:
        estimate = resources.estimate_resources(sample.config, sample.family)
        others = [other for other in samples if other.family == sample.family and other.name != sample.name]
        seen = {module for other in others for module in other.modules}
        own = {} if sample.family == SHAPES else shapes
        unseen = predict(sample, fit(others, own)) if seen >= set(sample.modules) else None
        found.append(Comparison(sample, {kind: getattr(estimate, kind) for kind in KINDS}, unseen))
    return found


def table(found: list[Comparison]) -> str:
    """Markdown."""
    amounts = "Yosys | model | error, % | unseen, %"
    lines = [f"| configuration | family | DSP | BRAM36 | LUT: {amounts} | FF: {amounts} |", "|---" * 12 + "|"]
    for one in found:
        cells = [one.sample.name, one.sample.family, _exact(one, "dsp"), _exact(one, "bram36")]
        for kind in ("lut", "ff"):
            unseen = one.unseen_error(kind)
            cells += [f"{one.sample.total[kind]:,}", f"{one.model[kind]:,}", f"{100 * one.error(kind):+.1f}"]
            cells += ["-" if unseen is None else f"{100 * unseen:+.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _exact(one: Comparison, kind: str) -> str:
    counted, modelled = one.sample.total[kind], one.model[kind]
    return f"{counted:,g} = {modelled:,g}" if counted == modelled else f"**{counted:,g}, not {modelled:,g}**"


def synthesize(name: str, family: str, config: AcceleratorConfig, path: Path) -> None:
    emitted = rtl.emit(config)
    board = find(BOARDS[family])
    assert isinstance(board, FpgaTarget)
    files = {file: emitted[file] for file in rtl.sources(emitted, "rtl")}
    target = board.model_copy(update={"accelerator": config})
    out = path.with_suffix("")
    out.mkdir(parents=True, exist_ok=True)
    design = synthesis.Design(files, "accelerator", None, target)
    report = synthesis.synthesize(design, out, lambda line: print(f"{name}, {family}: {line}", flush=True), 1)
    path.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--synthesize", action="store_true")
    options = parser.parse_args()
    samples = []
    for name, (config, families) in CONFIGURATIONS.items():
        for family in families:
            path = options.folder / f"{name.replace(' ', '-')}.{family}.json"
            if options.synthesize and not path.exists():
                synthesize(name, family, config, path)
            if path.exists():
                samples.append(read(name, family, config, path))
            else:
                print(f"{path}: is not there; {name} on {family} is left out", flush=True)
    by_family = {family: [s for s in samples if s.family == family] for family in BOARDS}
    if lacking := [family for family, of_family in by_family.items() if not of_family]:
        raise SystemExit(f"{options.folder} has no counts for {', '.join(lacking)}: give --synthesize.")
    shapes = fit(by_family[SHAPES], {})
    coefficients = {family: fit(of_family, shapes) for family, of_family in by_family.items()}
    coefficients[SHAPES] = shapes
    data = [
        {"name": s.name, "family": s.family, "configuration": s.config.model_dump(), "modules": s.modules}
        for s in samples
    ]
    tool = samples[0].tool
    _write("coefficients.json", {"fitted": tool, "coefficients": coefficients, "data": data})
    fabric.coefficients.cache_clear()
    found = compare(samples, shapes)
    of_families = {family: [one for one in found if one.sample.family == family] for family in BOARDS}
    bounds = {
        family: {kind: max(abs(one.error(kind)) for one in some) for kind in KINDS}
        for family, some in of_families.items()
    }
    unseen = {
        family: {kind: max(abs(one.unseen_error(kind) or 0.0) for one in some) for kind in KINDS[2:]}
        for family, some in of_families.items()
    }
    compared = [one.as_json() for one in found]
    _write("validation.json", {"tool": tool, "bounds": bounds, "unseen": unseen, "configurations": compared})
    print(table(found))
    for what, errors in (("model", bounds), ("unseen", unseen)):
        for family, worst in errors.items():
            print(what, family, {kind: f"{100 * value:.1f} %" for kind, value in worst.items()})


def _write(name: str, values: dict[str, Any]) -> None:
    (PACKAGE / name).write_text(json.dumps(values) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
