"""Export the trained vision transformer to ONNX and compare it with PyTorch."""

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from dataset import DATASET_DIR, HERE, load_split, normalize
from numpy.typing import NDArray
from train import DEFAULT_CHECKPOINT
from vit import VisionTransformer

OPSET = 20
"""The first opset with Gelu; at 21 ONNX Runtime 1.32 cannot fuse int8 Q/DQ on every processor."""


def load_model(checkpoint: Path) -> VisionTransformer:
    """Return the trained model in evaluation mode."""
    model = VisionTransformer()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    return model.eval()


def export(model: VisionTransformer, path: Path) -> None:
    """Write ``model`` as one self-contained ONNX file with a symbolic batch dimension."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 28, 28),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
    )
    assert program is not None
    proto = program.model_proto
    strip_trace(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, path)


def strip_trace(proto: onnx.ModelProto) -> None:
    """Drop the exporter's per-node stack traces, which name paths of the exporting machine."""
    proto.ClearField("metadata_props")
    graph = proto.graph
    graph.ClearField("metadata_props")
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def largest_difference(model: VisionTransformer, path: Path, image: NDArray[np.float32]) -> float:
    """Return the largest absolute difference between PyTorch's and ONNX Runtime's logits."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    actual = np.asarray(session.run(["logits"], {"image": image})[0])
    with torch.no_grad():
        expected = model(torch.from_numpy(image)).numpy()
    return float(np.abs(actual - expected).max())


def main() -> None:
    """Export, then compare on a batch that differs in size from the traced one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--output", type=Path, default=HERE / "vit_float.onnx")
    parser.add_argument("--data", type=Path, default=DATASET_DIR)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(args.checkpoint)
    export(model, args.output)
    images, _ = load_split("t10k", args.data)
    difference = largest_difference(model, args.output, normalize(images[:256]))
    size = args.output.stat().st_size
    print(f"{args.output.name}: {size} bytes, largest difference {difference:.2e}")
    if difference > 1e-3:
        raise SystemExit("the exported model does not match PyTorch")


if __name__ == "__main__":
    main()
