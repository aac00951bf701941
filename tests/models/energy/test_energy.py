"""The energy model: counts of a program, calibration, band."""

from __future__ import annotations

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import BYTES, KINDS, Descriptor
from intaglio.hw.energy import Actions, Device, calibrate, count, estimate

TINY = PRESETS["tiny"]
ZYNQ = Device("ultrascale+", 274_080, "zynq")


def gemm(**fields: int) -> Descriptor:
    return Descriptor("GEMM", {"rows": 10, "groups": 6, "k_steps": 5} | fields)


def test_products_include_padding() -> None:
    (actions,) = count([gemm()], TINY)
    # 10 rows are 3 row tiles of 4; 24 channels are 3 column tiles of 8; 5 steps of 8 products.
    assert actions.products == 3 * 3 * 5 * 4 * 8 * 8
    assert actions.results == 3 * 6 * 4 * 4
    assert actions.weight_buffer == 3 * 3 * 5 * 64
    assert actions.memory == BYTES


def test_queue_lengths() -> None:
    (none,) = count([gemm(queue=1)], TINY, lambda i, d: 0)
    assert none == Actions(memory=BYTES)


def test_attention_counts_both_passes_of_the_exponentials() -> None:
    d = Descriptor("ATTENTION", {"heads": 2, "qk_steps": 2, "keys": 16, "rows": 4, "v_words": 2})
    (actions,) = count([d], TINY)
    assert actions.products == 2 * (2 * 2 + 2 * 2 * 2) * TINY.macs


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_every_kind_is_counted(kind: str) -> None:
    (actions,) = count([Descriptor(kind, {})], TINY)
    assert actions.memory >= BYTES


def test_external_bytes() -> None:
    program = [Descriptor("LOAD_WEIGHTS", {"entries": 3}), Descriptor("STORE", {"words": 7})]
    weights, store = count(program, TINY)
    assert weights.memory == BYTES + 3 * TINY.entry_bytes
    assert store.memory == BYTES + 7 * TINY.depth


def test_components_sum_and_band() -> None:
    energy = estimate(count([gemm()] * 100, TINY), 1e-3, 300, 100_000, ZYNQ)
    assert energy.total == pytest.approx(sum(energy.components.values()))
    assert 0 <= energy.low < energy.total < energy.high
    assert energy.watts == pytest.approx(energy.total)  # in 1 ms
    assert sum(energy.descriptors) < energy.total


def test_more_of_anything_costs_more() -> None:
    actions = count([gemm()] * 100, TINY)
    base = estimate(actions, 1e-3, 300, 100_000, ZYNQ).total
    assert estimate(actions * 2, 1e-3, 300, 100_000, ZYNQ).total > base
    assert estimate(actions, 2e-3, 300, 100_000, ZYNQ).total > base
    assert estimate(actions, 1e-3, 300, 200_000, ZYNQ).total > base
    assert (
        estimate(actions, 1e-3, 300, 100_000, Device("7-series", 53_200, "none"))
        .notes[-1]
        .startswith("Family")
    )


def test_unknown_family() -> None:
    with pytest.raises(ValueError, match=r"'ice40' is unknown to the energy model; known are ultrascale"):
        estimate([], 1.0, 1, 1, Device("ice40", 1, "none"))


def test_coefficients_are_those_of_the_calibration() -> None:
    found, kept = calibrate.calibrate(), calibrate.load()
    assert kept.names == found.names
    np.testing.assert_allclose(kept.mean, found.mean, rtol=1e-4)
    assert (kept.mean > 0).all()
    assert kept.error == pytest.approx(found.error, rel=1e-3)


def test_calibration_recovers_what_made_the_measurements() -> None:
    rng = np.random.default_rng(1)
    known = calibrate.priors()
    truth = np.array([p.mean for p in known]) * 1.5
    rows = [
        {p.name: v / p.mean for p, v in zip(known, rng.random(len(known)), strict=True)} for _ in range(3000)
    ]
    watts = [sum(row[p.name] * t for p, t in zip(known, truth, strict=True)) for row in rows]
    mean, covariance = calibrate.fit(rows, watts, known)
    np.testing.assert_allclose(mean, truth, rtol=0.1)
    assert (np.sqrt(np.diag(covariance)) < [p.deviation for p in known]).all()


def test_left_out_is_not_used() -> None:
    left = calibrate.leave_one_out()
    measured, product = calibrate.designs()
    assert len(left) == len(measured)
    mean = calibrate.calibrate().mean
    rows = [calibrate.features(design, product) for design in measured]
    within = [
        sum(row.get(p.name, 0) * m for p, m in zip(calibrate.priors(), mean, strict=True)) for row in rows
    ]
    errors = [abs(power / out.measured - 1) for power, out in zip(within, left, strict=True)]
    assert sum(errors) < sum(abs(out.error) for out in left)
