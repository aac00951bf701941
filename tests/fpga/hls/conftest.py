"""The switch that rewrites golden texts of the HLS sources and flow scripts."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-hls-golden", action="store_true", help="rewrite the golden texts of HLS sources and scripts"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden texts are to be rewritten. pytest reads the switch only if it starts in this folder."""
    return bool(request.config.getoption("update_hls_golden", default=False))
