"""What all tests share: the tiers, and their rule that in CI nothing is skipped in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TIERS_NOT_IN_CI = {"vendor", "exporters"}


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """With INTAGLIO_NO_SKIP set, a skipped test of the tiers that CI can run is a failure."""
    outcome = yield
    report = outcome.get_result()
    exempt = any(item.get_closest_marker(tier) for tier in TIERS_NOT_IN_CI)
    if (
        os.environ.get("INTAGLIO_NO_SKIP")
        and report.skipped
        and not exempt
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which INTAGLIO_NO_SKIP forbids: {report.longrepr}"
