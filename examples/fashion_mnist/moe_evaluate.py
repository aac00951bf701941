"""Measure the mixture-of-experts models in ONNX Runtime: accuracy by task, and routing."""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from dataset import DATASET_DIR, HERE, load_split, normalize
from moe import GROUP_OF_CLASS, TASKS
from moe_export import feed
from moe_quantize import MODELS
from numpy.typing import NDArray

EXPERTS = 8


@dataclass
class Run:
    """What one model did on every image: its class, and the experts of every token and mixture."""

    predicted: NDArray[np.int64]
    """(images,)"""
    chosen: NDArray[np.bool_]
    """(images, mixtures, tokens, EXPERTS)"""


@dataclass
class Row:
    """One line of the table: a model with one of its tasks."""

    model: str
    task: str
    images: int
    top1: float
    same_class: float
    same_experts: float
    """Share of tokens, in percent, whose set of experts is the float model's, over all mixtures."""
    tokens_per_expert: list[list[float]]
    """Per mixture and expert, the mean over the images."""


def open_session(path: Path, threads: int) -> tuple[ort.InferenceSession, list[str]]:
    """Open ``path`` with every Q/DQ node computed as written, and the experts' numbers as outputs."""
    model = onnx.load_model(path)
    choices = [node.output[1] for node in model.graph.node if node.op_type == "TopK"]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in choices)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, ["logits", *choices]


def run(path: Path, images: NDArray[np.uint8], task: int, tasks: int, threads: int) -> Run:
    """Run one model on all images, one by one."""
    session, outputs = open_session(path, threads)
    predicted, chosen = [], []
    for image in images:
        logits, *experts = session.run(outputs, feed(normalize(image[None]), task, tasks))
        predicted.append(np.asarray(logits)[0].argmax())
        sets = np.zeros((len(experts), experts[0].shape[1], EXPERTS), np.bool_)
        np.put_along_axis(sets, np.concatenate(experts), True, axis=-1)
        chosen.append(sets)
    return Run(np.array(predicted), np.array(chosen))


def evaluate(args: argparse.Namespace) -> list[Row]:
    """Return one row per model and task; a quantized model is compared with its float one."""
    images, labels = load_split(args.split, args.data)
    images, labels = images[: args.images], labels[: args.images]
    truth = {"class": labels, "group": np.array(GROUP_OF_CLASS)[labels]}
    rows = []
    for name, tasks in MODELS.items():
        for task, task_name in enumerate([*TASKS][:tasks]):
            reference: Run | None = None
            for form in ("float", "qdq"):
                path = args.models / f"{name}_{form}.onnx"
                result = run(path, images, task, tasks, args.threads)
                reference = reference or result
                same = (result.chosen == reference.chosen).all(-1)
                rows.append(
                    Row(
                        path.name,
                        task_name,
                        len(images),
                        round(100 * float((result.predicted == truth[task_name]).mean()), 2),
                        round(100 * float((result.predicted == reference.predicted).mean()), 2),
                        round(100 * float(same.mean()), 2),
                        result.chosen.sum(2).mean(0).round(1).tolist(),
                    )
                )
    return rows


def print_table(rows: list[Row]) -> None:
    """Print the rows, then the tokens per expert."""
    print(f"{'model':<22} {'task':<6} {'images':>6} {'top-1 %':>8} {'as float %':>11} {'same experts %':>15}")
    for row in rows:
        numbers = f"{row.images:>6} {row.top1:>8.2f} {row.same_class:>11.2f} {row.same_experts:>15.2f}"
        print(f"{row.model:<22} {row.task:<6} {numbers}")
    print("\nmean tokens per expert and image, expert 0 first")
    for row in rows:
        for layer, tokens in enumerate(row.tokens_per_expert):
            counts = " ".join(f"{count:5.1f}" for count in tokens)
            print(f"{row.model:<22} {row.task:<6} layer {2 * layer + 1}: {counts}")


def main() -> None:
    """Measure, then print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=HERE, help="folder with the ONNX files")
    parser.add_argument("--data", type=Path, default=DATASET_DIR)
    parser.add_argument("--split", choices=("t10k", "t1k"), default="t10k")
    parser.add_argument("--images", type=int, help="use only the first ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    rows = evaluate(args)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
