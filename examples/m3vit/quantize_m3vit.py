"""Quantize the float M3ViT-Tiny with ONNX Runtime's static quantizer; the routers stay in float."""

import argparse
import logging
from pathlib import Path

import numpy as np
import onnxruntime as ort
from m3vit import TASKS
from moe_quantize import Feed, quantize
from numpy.typing import NDArray
from quantize import report


def feeds(images: NDArray[np.float32]) -> list[Feed]:
    """Return the inputs of every run over ``images`` and tasks."""
    single = np.split(images, len(images))
    return [{"image": image, "task": np.array(task, np.int64)} for image in single for task in range(TASKS)]


def tokens(path: Path, runs: list[Feed]) -> NDArray[np.float32]:
    """Return the tokens of every run, with every Q/DQ node computed as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.stack([np.asarray(session.run(["tokens"], run)[0]) for run in runs])


def main() -> None:
    """Quantize, and compare with the float model on the evaluation images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="where export_m3vit.py wrote the float model and the images"
    )
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    source, output = args.folder / "m3vit_dense.onnx", args.folder / "m3vit_dense_qdq.onnx"
    quantize(source, output, feeds(np.load(args.folder / "calib.npy")))
    report(output)
    runs = feeds(np.load(args.folder / "eval.npy"))
    exact, rounded = tokens(source, runs), tokens(output, runs)
    ratio = 10 * np.log10(np.mean(exact**2) / np.mean((rounded - exact) ** 2))
    print(f"{output.name}: {ratio:.1f} dB against float")


if __name__ == "__main__":
    main()
