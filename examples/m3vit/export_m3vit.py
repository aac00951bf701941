"""Write M3ViT-Tiny as a float ONNX model, with calibration and evaluation images beside it."""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from m3vit import EXPERTS, TASKS, TOP_K, M3ViT, images, seeded
from moe_export import SPELLINGS, write_onnx
from torch import Tensor


def write(model: M3ViT, spelling: str, path: Path) -> None:
    """Write ``model`` for one image in one of the spellings of ``moe_export.write_onnx``."""
    inputs = {"image": torch.from_numpy(images(1, 1)), "task": torch.tensor(0)}
    write_onnx(model, inputs, "tokens", spelling, path)


def write_images(folder: Path) -> None:
    """Write calibration and evaluation images, float32 as the model takes them."""
    np.save(folder / "calib.npy", images(8, 31))
    np.save(folder / "eval.npy", images(4, 32))


def largest_difference(model: M3ViT, path: Path) -> float:
    """Return the largest absolute difference between PyTorch's and ONNX Runtime's tokens."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = images(1, 2)
    worst = 0.0
    for task in range(TASKS):
        feed = {"image": image, "task": np.array(task, np.int64)}
        with torch.no_grad():
            expected = model(torch.from_numpy(image), torch.tensor(task)).numpy()
        worst = max(worst, float(np.abs(np.asarray(session.run(["tokens"], feed)[0]) - expected).max()))
    return worst


def queue_lengths(model: M3ViT, task: int) -> list[list[int]]:
    """Return the tokens that chose each expert, layer by layer, for one image."""
    lengths: list[list[int]] = []

    def count(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        chosen = logits.topk(TOP_K, dim=-1).indices
        lengths.append(torch.bincount(chosen.flatten(), minlength=EXPERTS).tolist())

    hooks = [mixture.gate.register_forward_hook(count) for mixture in model.mixtures()]
    with torch.no_grad():
        model(torch.from_numpy(images(1, 2)), torch.tensor(task))
    for hook in hooks:
        hook.remove()
    return lengths


def main() -> None:
    """Export, compare, and show how the tokens spread over the experts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--spelling", choices=[*SPELLINGS], default="dense")
    parser.add_argument("--final-norm", action="store_true", help="normalise the last residual stream")
    parser.add_argument("--seed", type=int, default=2023)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    model = seeded(args.seed, args.final_norm)
    path = args.out / f"m3vit_{args.spelling}.onnx"
    write(model, args.spelling, path)
    write_images(args.out)
    difference = largest_difference(model, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, largest difference {difference:.2e}")
    for task in range(TASKS):
        for mixture, lengths in enumerate(queue_lengths(model, task)):
            used = sum(length > 0 for length in lengths)
            print(f"task {task} layer {2 * mixture + 1:2d}: {used:2d} experts, tokens {lengths}")
    if difference > 1e-3:
        raise SystemExit("the exported model does not match PyTorch")


if __name__ == "__main__":
    main()
