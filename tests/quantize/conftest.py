"""Calibration images of the fixtures' size."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    """Smooth random images, normalized."""
    rng = np.random.default_rng(3)
    coarse = rng.normal(0.0, 0.8, (6, 3, 8, 8))
    fine = rng.normal(0.0, 0.3, (6, 3, 32, 32))
    return (np.kron(coarse, np.ones((4, 4))) + fine).astype(np.float32)


@pytest.fixture(scope="session")
def fixtures(root: Path) -> Path:
    """Where the small models are."""
    return root / "tests" / "fixtures"
