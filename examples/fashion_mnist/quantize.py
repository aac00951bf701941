"""Quantize the float model with ONNX Runtime's static quantizer, fully and by its defaults."""

import argparse
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from dataset import DATASET_DIR, HERE, load_split, normalize
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

DEFAULT_OP_TYPES = ["Conv", "Gemm", "MatMul"]
"""The operator types of the common recipe, which leaves everything between them in float."""

QDQ_TYPES = {"QuantizeLinear", "DequantizeLinear"}

Override = list[dict[str, object]]


class ImageReader(CalibrationDataReader):
    """Hands calibration images to the quantizer, one batch at a time."""

    def __init__(self, images: NDArray[np.uint8], batch_size: int = 64) -> None:
        self._batches = self._read(images, batch_size)

    @staticmethod
    def _read(images: NDArray[np.uint8], batch_size: int) -> Iterator[Mapping[str, NDArray[np.float32]]]:
        """Yield the model's feed for every batch."""
        for start in range(0, len(images), batch_size):
            yield {"image": normalize(images[start : start + batch_size])}

    def get_next(self) -> Mapping[str, NDArray[np.float32]] | None:
        """Return the next feed, or None after the last."""
        return next(self._batches, None)


def spread(images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Pick ``count`` images at equal distances."""
    return images[np.linspace(0, len(images) - 1, count).astype(int)]


def calibration_images(args: argparse.Namespace) -> NDArray[np.uint8]:
    """Return the images of ``--calibration``, or ``--count`` images of the training set."""
    if args.calibration is not None:
        return np.asarray(np.load(args.calibration), np.uint8)
    return spread(load_split("train", args.data)[0], args.count)


def wide_tensors(graph: onnx.GraphProto) -> list[str]:
    """Name the tensors that need 16 bits.

    These are the residual stream with everything that is normalised, the products of linear
    layers before their bias is added, those biases, and the logits.
    """
    constants = {item.name for item in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    wide = [item.name for item in graph.output]
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            wide += stream(node.input[0], producers, constants)
        elif node.op_type == "Add":
            producer = producers.get(node.input[0])
            if producer is not None and producer.op_type == "MatMul" and node.input[1] in constants:
                wide += node.input
    return sorted(set(wide))


def stream(name: str, producers: Mapping[str, onnx.NodeProto], constants: set[str]) -> list[str]:
    """Return ``name`` and, if a constant was added to make it, what that was added to."""
    producer = producers.get(name)
    if producer is not None and producer.op_type == "Add" and constants & set(producer.input):
        return [name, *producer.input]
    return [name]


def overrides(graph: onnx.GraphProto) -> dict[str, Override]:
    """Return the quantizer's per-tensor overrides: symmetric int16 for the wide tensors."""
    wide: Override = [{"quant_type": QuantType.QInt16, "symmetric": True}]
    return dict.fromkeys(wide_tensors(graph), wide)


def float_op_types(graph: onnx.GraphProto) -> list[str]:
    """Return the operator types of the graph, less Shape, which reads no values."""
    return sorted({node.op_type for node in graph.node} - {"Shape"})


def quantize(
    prepared: Path,
    output: Path,
    images: NDArray[np.uint8],
    op_types: list[str],
    tensor_overrides: dict[str, Override],
) -> None:
    """Run the static quantizer with int8 activations and per-channel int8 weights."""
    quantize_static(
        prepared,
        output,
        ImageReader(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=op_types,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"TensorQuantOverrides": tensor_overrides},
    )
    onnx.checker.check_model(onnx.load_model(output), full_check=True)


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Name the float tensors that go from one computing node to another without Q/DQ."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    infos = (*graph.value_info, *graph.input, *graph.output)
    real = {item.name for item in infos if item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    real |= {item.name for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    computing = [node for node in graph.node if node.op_type not in QDQ_TYPES | {"Shape"}]
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    read = {name for node in computing for name in node.input if name}
    return sorted((read & real) - dequantized)


def qdq_counts(model: onnx.ModelProto) -> Counter[str]:
    """Count the Q/DQ nodes of ``model`` by operator and integer type."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {item.name: item.type.tensor_type.elem_type for item in (*graph.value_info, *graph.output)}
    types |= {item.name: item.data_type for item in graph.initializer}
    counts: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in QDQ_TYPES:
            integer = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
            counts[f"{node.op_type} {onnx.TensorProto.DataType.Name(types[integer])}"] += 1
    return counts


def report(path: Path) -> None:
    """Print what of the model in ``path`` is quantized, and what is not."""
    model = onnx.load_model(path)
    left = float_tensors(model)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(left)} float tensors without Q/DQ")
    for kind, count in sorted(qdq_counts(model).items()):
        print(f"  {count:4d} {kind}")


def main() -> None:
    """Write both quantized models and say what they hold."""
    args = parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    images = calibration_images(args)
    print(f"calibrating with {len(images)} images")
    full, default = args.output / "vit_qdq.onnx", args.output / "vit_qdq_default.onnx"
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(args.model, prepared, skip_optimization=True)
        graph = onnx.load_model(prepared).graph
        quantize(prepared, full, images, float_op_types(graph), overrides(graph))
        quantize(prepared, default, images, DEFAULT_OP_TYPES, {})
    report(full)
    report(default)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "vit_float.onnx")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the two files")
    parser.add_argument("--data", type=Path, default=DATASET_DIR)
    parser.add_argument("--count", type=int, default=1024, help="calibration images from the training set")
    parser.add_argument("--calibration", type=Path, help="a .npy file of uint8 images to use instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
