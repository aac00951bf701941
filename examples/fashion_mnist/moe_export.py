"""Export a mixture-of-experts model to ONNX and compare it with PyTorch, task by task."""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from dataset import DATASET_DIR, HERE, load_split, normalize
from export import OPSET, strip_trace
from moe import Moe, MoeTransformer
from moe_train import DEFAULT_CHECKPOINT
from numpy.typing import NDArray
from torch import Tensor, nn

SPELLINGS = {"dense": OPSET, "loop": 17}
"""Ways to write a mixture of experts, and the opset each is written in."""


def load_model(checkpoint: Path) -> tuple[MoeTransformer, int]:
    """Return the trained model in evaluation mode, and its number of tasks."""
    state = torch.load(checkpoint, weights_only=True)
    model = MoeTransformer(state["tasks"])
    model.load_state_dict(state["model"])
    return model.eval(), state["tasks"]


def write_onnx(model: nn.Module, inputs: dict[str, Tensor], output: str, spelling: str, path: Path) -> None:
    """Write ``model`` as one self-contained ONNX file for inputs of the given shapes.

    ``dense`` computes every expert on every token and masks (dynamo exporter); ``loop`` gathers the
    tokens of every expert and adds its results back to them (legacy exporter, which traces).
    """
    for module in model.modules():
        if isinstance(module, Moe):
            module.dense = spelling == "dense"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(written),
            input_names=[*inputs],
            output_names=[output],
            opset_version=SPELLINGS[spelling],
            dynamo=spelling == "dense",
            external_data=False,
            verbose=False,
        )
        proto = onnx.load_model(written)
    strip_trace(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, path)


def feed(image: NDArray[np.float32], task: int, tasks: int) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of one run; only a model of several tasks has the second one."""
    return {"image": image} | ({"task": np.array(task, np.int64)} if tasks > 1 else {})


def largest_difference(model: MoeTransformer, tasks: int, path: Path, images: NDArray[np.float32]) -> float:
    """Return the largest absolute difference between PyTorch's and ONNX Runtime's logits."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for task in range(tasks):
        for image in np.split(images, len(images)):
            actual = np.asarray(session.run(["logits"], feed(image, task, tasks))[0])
            with torch.no_grad():
                arguments = (torch.tensor(task),) if tasks > 1 else ()
                expected = model(torch.from_numpy(image), *arguments).numpy()
            worst = max(worst, float(np.abs(actual - expected).max()))
    return worst


def main() -> None:
    """Export, then compare on images of the test set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--output", type=Path, default=HERE / "moe_float.onnx")
    parser.add_argument("--spelling", choices=[*SPELLINGS], default="dense")
    parser.add_argument("--data", type=Path, default=DATASET_DIR)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tasks = load_model(args.checkpoint)
    inputs = {"image": torch.zeros(1, 1, 28, 28)} | ({"task": torch.tensor(0)} if tasks > 1 else {})
    write_onnx(model, inputs, "logits", args.spelling, args.output)
    images, _ = load_split("t10k", args.data)
    difference = largest_difference(model, tasks, args.output, normalize(images[:100]))
    size = args.output.stat().st_size
    print(f"{args.output.name}: {size} bytes, largest difference {difference:.2e}")
    if difference > 1e-3:
        raise SystemExit("the exported model does not match PyTorch")


if __name__ == "__main__":
    main()
