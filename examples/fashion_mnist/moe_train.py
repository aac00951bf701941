"""Train the mixtures of experts, starting from the dense model's weights."""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import torch
from dataset import DATASET_DIR, HERE
from moe import GROUP_OF_CLASS, TASKS, Moe, MoeTransformer
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from train import batches, load_tensors, parameter_groups, save, to_input

DEFAULT_CHECKPOINT = Path(tempfile.gettempdir()) / "intaglio-fashion-mnist" / "moe.pt"
BALANCE, HINGE = 0.2, 0.1
"""Weights of the two losses of the gates."""


def dense_weights(path: Path) -> dict[str, Tensor]:
    """Return the dense model's weights by their PyTorch names, from its ONNX file.

    The exporter transposes the matrices of MatMul and numbers them; the bias that is added to the
    product still has its name.
    """
    graph = onnx.load_model(path).graph
    tensors = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    named = {name: value for name, value in tensors.items() if not name.startswith("val_")}
    for node in graph.node:
        if node.op_type == "Add" and node.input[0] in products and node.input[1] in named:
            matrix = tensors[products[node.input[0]]]
            named[node.input[1].removesuffix("bias") + "weight"] = matrix.T.contiguous()
    return named


def start_from_dense(model: MoeTransformer, dense: Mapping[str, Tensor]) -> None:
    """Copy the dense weights; every expert gets a random part of the dense MLP's hidden units.

    The outputs are scaled up, as the two gate probabilities of a token sum to about 2 / experts
    at first.
    """
    own = model.state_dict()
    for name, value in dense.items():
        if name in own:
            own[name].copy_(value.expand_as(own[name]))
    for layer, block in enumerate(model.blocks):
        if isinstance(block.mlp, Moe):
            for expert in block.mlp.experts:
                prefix = f"blocks.{layer}.mlp"
                hidden = expert.fc1.out_features
                units = torch.randperm(len(dense[f"{prefix}.fc1.bias"]))[:hidden]
                scale = len(block.mlp.experts) / 2
                with torch.no_grad():
                    expert.fc1.weight.copy_(dense[f"{prefix}.fc1.weight"][units])
                    expert.fc1.bias.copy_(dense[f"{prefix}.fc1.bias"][units])
                    expert.fc2.weight.copy_(scale * dense[f"{prefix}.fc2.weight"][:, units])
                    expert.fc2.bias.copy_(scale * dense[f"{prefix}.fc2.bias"])


def targets(labels: Tensor, task: int) -> Tensor:
    """Return the labels of ``task`` for class numbers."""
    return labels if task == 0 else torch.tensor(GROUP_OF_CLASS)[labels]


def task_loss(model: MoeTransformer, images: Tensor, labels: Tensor, task: int, multi: bool) -> Tensor:
    """Return the classification loss, over the outputs that ``task`` uses, plus the gates' losses."""
    logits = model(images, torch.tensor(task) if multi else None)
    used = list(TASKS.values())[task]
    loss = functional.cross_entropy(logits[:, :used], targets(labels, task), label_smoothing=0.05)
    for mixture in model.mixtures():
        loss = loss + BALANCE * mixture.balance + HINGE * mixture.hinge
    return loss


@torch.no_grad()
def accuracy(model: MoeTransformer, images: Tensor, labels: Tensor, task: int, multi: bool) -> float:
    """Return the top-1 accuracy of ``task`` in percent."""
    model.eval()
    number = torch.tensor(task) if multi else None
    used = list(TASKS.values())[task]
    correct = 0
    for chunk, truth in zip(images.split(500), labels.split(500), strict=True):
        predicted = model(to_input(chunk), number)[:, :used].argmax(1)
        correct += int((predicted == targets(truth, task)).sum())
    return 100.0 * correct / len(images)


@torch.no_grad()
def pad_head(model: MoeTransformer, images: Tensor) -> None:
    """Give the outputs that a task does not use a constant: its smallest logit on ``images``.

    They can then win nothing, and do not widen the range of the logits.
    """
    model.eval()
    for task, used in enumerate(TASKS.values()):
        if used < max(TASKS.values()):
            logits = model(to_input(images), torch.tensor(task))[:, :used]
            model.head.weight[task, used:] = 0
            model.head.bias[task, used:] = logits.min()


def train_epoch(
    model: MoeTransformer,
    data: Iterator[tuple[Tensor, Tensor]],
    tasks: int,
    optimizer: Optimizer,
    scheduler: LRScheduler,
) -> float:
    """Run one epoch, a task per batch in turn, and return its mean loss."""
    model.train()
    losses = []
    for step, (images, labels) in enumerate(data):
        loss = task_loss(model, images, labels, step % tasks, tasks > 1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def train(args: argparse.Namespace) -> None:
    """Train for ``args.epochs`` epochs, with a checkpoint after each."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    images, labels = load_tensors("train", args.data)
    test_images, test_labels = load_tensors("t10k", args.data)
    multi = args.tasks > 1
    model = MoeTransformer(args.tasks)
    start_from_dense(model, dense_weights(args.dense))
    for mixture in model.mixtures():
        mixture.jitter = args.jitter
    optimizer = AdamW(parameter_groups(model, args.weight_decay), lr=args.lr)
    steps = args.epochs * (len(images) // args.batch_size)
    scheduler = OneCycleLR(optimizer, max_lr=args.lr, total_steps=steps, pct_start=0.15)
    for epoch in range(args.epochs):
        start = time.perf_counter()
        data = batches(images, labels, args.batch_size, args.shift)
        loss = train_epoch(model, data, args.tasks, optimizer, scheduler)
        gates = ", ".join(f"{mixture.balance:.2f} {mixture.hinge:.3f}" for mixture in model.mixtures())
        if multi:
            pad_head(model, images[:1000])
        top1 = [accuracy(model, test_images, test_labels, task, multi) for task in range(args.tasks)]
        save(args.checkpoint, {"model": model.state_dict(), "tasks": args.tasks, "top1": top1})
        reached = ", ".join(f"{value:.2f} %" for value in top1)
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{args.epochs} loss {loss:.4f} balance and hinge {gates} "
            f"top1 {reached} {seconds:.0f} s",
            flush=True,
        )


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATASET_DIR, help="folder with the four idx.gz files")
    parser.add_argument("--dense", type=Path, default=HERE / "vit_float.onnx", help="the dense model")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--tasks", type=int, choices=(1, len(TASKS)), default=1)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument(
        "--lr", type=float, default=1.2e-3, help="peak learning rate of the one-cycle schedule"
    )
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument(
        "--jitter", type=float, default=0.1, help="deviation of the noise on the gates' input"
    )
    parser.add_argument("--shift", type=int, default=1, help="largest random shift in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    train(parse_args())
