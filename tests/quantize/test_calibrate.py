"""What ONNX Runtime's calibrators see of a model of one node."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from intaglio.quantize.calibrate import calibrate
from intaglio.quantize.grids import METHODS


def doubling(batch: int | str) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 8]) for name in ("x", "y"))
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "doubling", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch", ["batch", 4])
def test_ranges_and_counts(method: str, batch: int | str, tmp_path: Path) -> None:
    """Seven images do not fill two batches of four: the last is repeated, which changes no range."""
    values = np.random.default_rng(5).normal(size=(7, 8)).astype(np.float32)
    steps: list[str] = []
    found = calibrate(doubling(batch), ["x", "y"], values, method, tmp_path, steps.append)
    assert steps[-1] == "calibrate 7/7"
    for name, expected in (("x", values), ("y", 2 * values)):
        seen = found[name]
        assert (seen.low, seen.high) == (expected.min(), expected.max())
        assert seen.counts.sum() == (7 if batch == "batch" else 8) * 8
        assert (seen.clipped is not None) == (method in ("percentile", "entropy"))
        if seen.clipped is not None:
            assert seen.low <= seen.clipped[0] < seen.clipped[1] <= seen.high
