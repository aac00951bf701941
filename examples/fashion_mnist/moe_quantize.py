"""Quantize the mixture-of-experts models with ONNX Runtime's static quantizer; the routers stay in float."""

import argparse
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from dataset import DATASET_DIR, HERE, load_split, normalize
from moe import TASKS
from moe_export import feed
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from quantize import Override, float_op_types, overrides, report, spread

Feed = dict[str, NDArray[np.generic]]

MODELS = {"moe": 1, "moe_tasks": len(TASKS)}
"""Start of the models' file names, and number of tasks."""


class Reader(CalibrationDataReader):
    """Hands the inputs of every run to the quantizer."""

    def __init__(self, runs: Iterable[Feed]) -> None:
        self._feeds = iter(runs)

    def get_next(self) -> Feed | None:
        """Return the next feed, or None after the last."""
        return next(self._feeds, None)


def feeds(images: NDArray[np.uint8], tasks: int) -> list[Feed]:
    """Return the inputs of every run over ``images`` and tasks."""
    return [feed(normalize(image[None]), task, tasks) for image in images for task in range(tasks)]


class Mixture:
    """The nodes of one mixture of experts, found from its TopK."""

    def __init__(self, graph: onnx.GraphProto, topk: onnx.NodeProto) -> None:
        producers = {name: node for node in graph.node for name in node.output}
        readers = {name: [node for node in graph.node if name in node.input] for name in producers}
        softmax, gather = self._only(readers[topk.input[0]], "Softmax"), readers[topk.output[1]]
        scatter = self._only(gather, "ScatterElements")
        unsqueeze = self._only(readers[scatter.output[0]], "Unsqueeze")
        weighted = self._only(readers[unsqueeze.output[0]], "Mul")
        total = self._only(readers[weighted.output[0]], "ReduceSum")
        stack = producers[next(name for name in weighted.input if name != unsqueeze.output[0])]
        columns = [producers[name] for name in stack.input]
        self.logits = topk.input[0]
        self.experts = [node.input[0] for node in columns]
        self.stack = stack.output[0]
        self.float_nodes = [topk, softmax, *gather, unsqueeze, weighted, total, stack, *columns]

    @staticmethod
    def _only(nodes: list[onnx.NodeProto], op_type: str) -> onnx.NodeProto:
        """Return the one node of ``op_type``."""
        (node,) = (node for node in nodes if node.op_type == op_type)
        return node


def mixtures(graph: onnx.GraphProto) -> list[Mixture]:
    """Return the mixtures of experts of ``graph``."""
    return [Mixture(graph, node) for node in graph.node if node.op_type == "TopK"]


def ranges(path: Path, names: list[str], runs: Iterable[Feed]) -> list[tuple[float, float]]:
    """Return the smallest and largest value of every named tensor over ``runs``."""
    model = onnx.load_model(path)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = [[(value.min(), value.max()) for value in session.run(names, inputs)] for inputs in runs]
    low, high = np.min(seen, axis=0)[:, 0], np.max(seen, axis=0)[:, 1]
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def moe_overrides(path: Path, runs: Iterable[Feed]) -> dict[str, Override]:
    """Return the per-tensor overrides.

    Beside the dense model's: gate logits of 16 bits, symmetric weights where they are gathered by
    task, and one range for the outputs of all experts of a layer.
    """
    graph = onnx.load_model(path).graph
    found = mixtures(graph)
    result = overrides(graph)
    for mixture, (low, high) in zip(found, ranges(path, [m.stack for m in found], runs), strict=True):
        result[mixture.logits] = [{"quant_type": QuantType.QInt16, "symmetric": True}]
        shared: Override = [
            {"quant_type": QuantType.QInt8, "rmin": np.float32(low), "rmax": np.float32(high)}
        ]
        result |= dict.fromkeys(mixture.experts, shared)
    constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in constants:
            bits = QuantType.QInt8 if len(constants[node.input[0]].dims) == 3 else QuantType.QInt16
            result[node.input[0]] = [{"quant_type": bits, "symmetric": True}]
    return result


def quantize(source: Path, output: Path, runs: list[Feed]) -> None:
    """Run the static quantizer with int8 activations and per-channel int8 weights."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_optimization=True)
        graph = onnx.load_model(prepared).graph
        quantize_static(
            prepared,
            output,
            Reader(runs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=float_op_types(graph),
            nodes_to_exclude=[node.name for mixture in mixtures(graph) for node in mixture.float_nodes],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"TensorQuantOverrides": moe_overrides(prepared, runs)},
        )
    onnx.checker.check_model(onnx.load_model(output), full_check=True)


def main() -> None:
    """Write the quantized models and say what they hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", type=Path, default=HERE, help="folder with the float models, and for the others"
    )
    parser.add_argument("--data", type=Path, default=DATASET_DIR)
    parser.add_argument("--count", type=int, default=1024, help="calibration images from the training set")
    parser.add_argument("--calibration", type=Path, help="a .npy file of uint8 images to use instead")
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    if args.calibration is not None:
        images = np.asarray(np.load(args.calibration), np.uint8)
    else:
        images = spread(load_split("train", args.data)[0], args.count)
    print(f"calibrating with {len(images)} images")
    for name, tasks in MODELS.items():
        output = args.models / f"{name}_qdq.onnx"
        quantize(args.models / f"{name}_float.onnx", output, feeds(images, tasks))
        report(output)


if __name__ == "__main__":
    main()
