"""Calibrate the energy model on published board measurements, print what every one of them says of the others.

`python benchmarks/energy.py` rewrites hw_models/intaglio/hw/energy/coefficients.json (--check: only compares).
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from rich.console import Console
from rich.table import Table

from intaglio.hw.energy import calibrate


def left_out() -> Table:
    table = Table(title="Leave one out: predicted from the other measurements")
    for name in ("design", "measured at", "W", "predicted W", "error"):
        table.add_column(name, justify="left" if name in ("design", "measured at") else "right")
    results = calibrate.leave_one_out()
    for left in results:
        table.add_row(
            left.name, left.scope, f"{left.measured:.2f}", f"{left.predicted:.2f}", f"{left.error:+.1%}"
        )
    for scope in ("chip", "board"):
        table.add_row(f"rms, {scope}", "", "", "", f"{calibrate.rms(results, scope):.1%}")
    return table


def coefficients(found: calibrate.Coefficients) -> Table:
    table = Table(title="Coefficients")
    for name in ("coefficient", "unit", "prior", "calibrated", "source of the prior"):
        table.add_column(name)
    deviations = np.sqrt(np.diag(found.covariance))
    for prior, mean, deviation in zip(calibrate.priors(), found.mean, deviations, strict=True):
        known = f"{prior.mean:g} ± {prior.deviation:g}"
        table.add_row(prior.name, prior.unit, known, f"{mean:.3g} ± {deviation:.2g}", prior.source)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the file in the repository differs")
    check = parser.parse_args().check
    found = calibrate.calibrate()
    console = Console()
    console.print(left_out())
    console.print(coefficients(found))
    if check:
        return int(not np.allclose(calibrate.load().mean, found.mean, rtol=1e-4))
    calibrate.save(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
