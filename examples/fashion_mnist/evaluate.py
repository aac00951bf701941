"""Measure the top-1 accuracy of the three ONNX files in ONNX Runtime."""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
from dataset import DATASET_DIR, HERE, load_split, normalize
from numpy.typing import NDArray

MODELS = ("vit_float.onnx", "vit_qdq.onnx", "vit_qdq_default.onnx")


def open_session(path: Path, threads: int, fuse_qdq: bool) -> ort.InferenceSession:
    """Open ``path``; without ``fuse_qdq`` every Q/DQ node is computed as it is written."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if not fuse_qdq:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def predict(session: ort.InferenceSession, images: NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    """Return the predicted class of every image."""
    chunks = [images[start : start + size] for start in range(0, len(images), size)]
    logits = [np.asarray(session.run(["logits"], {"image": normalize(chunk)})[0]) for chunk in chunks]
    return np.concatenate(logits).argmax(1)


def evaluate(args: argparse.Namespace) -> list[dict[str, object]]:
    """Return one row per model: accuracy, and agreement with the first, the float one."""
    images, labels = load_split(args.split, args.data)
    rows: list[dict[str, object]] = []
    reference: NDArray[np.int64] | None = None
    for name in MODELS:
        session = open_session(args.models / name, args.threads, args.fuse_qdq)
        classes = predict(session, images, args.batch_size)
        reference = classes if reference is None else reference
        rows.append(
            {
                "model": name,
                "images": len(images),
                "top1": round(100.0 * float((classes == labels).mean()), 2),
                "same_class_as_float": round(100.0 * float((classes == reference).mean()), 2),
            }
        )
    return rows


def print_table(rows: list[dict[str, object]]) -> None:
    """Print the rows as a small table."""
    print(f"{'model':<22} {'images':>6} {'top-1 %':>8} {'as float %':>11}")
    for row in rows:
        top1, same = row["top1"], row["same_class_as_float"]
        print(f"{row['model']:<22} {row['images']:>6} {top1:>8.2f} {same:>11.2f}")


def main() -> None:
    """Measure, then print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=HERE, help="folder with the three ONNX files")
    parser.add_argument("--data", type=Path, default=DATASET_DIR)
    parser.add_argument("--split", choices=("t10k", "t1k"), default="t10k")
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--fuse-qdq", action="store_true", help="let ONNX Runtime fuse Q/DQ into int8 kernels"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    rows = evaluate(args)
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
