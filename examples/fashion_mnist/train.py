"""Train the small vision transformer on Fashion-MNIST with plain PyTorch on the CPU."""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from dataset import DATASET_DIR, MEAN, STD, load_split
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from vit import VisionTransformer

DEFAULT_CHECKPOINT = Path(tempfile.gettempdir()) / "intaglio-fashion-mnist" / "vit.pt"


def load_tensors(split: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Return a split as uint8 images (n, 1, 28, 28) and int64 labels."""
    images, labels = load_split(split, folder)
    return torch.from_numpy(images.copy())[:, None], torch.from_numpy(labels.copy()).long()


def to_input(images: Tensor) -> Tensor:
    """Normalise uint8 images to the model's float input."""
    return (images.float() / 255 - MEAN) / STD


def augment(images: Tensor, max_shift: int) -> Tensor:
    """Flip half of the images and shift each by at most ``max_shift`` pixels."""
    count, _, height, width = images.shape
    shift = torch.randint(0, 2 * max_shift + 1, (2, count, 1))
    rows = torch.arange(height) + shift[0]
    columns = torch.arange(width) + shift[1]
    flip = torch.rand(count, 1) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    padded = functional.pad(images, (max_shift,) * 4)
    index = torch.arange(count)[:, None, None]
    return padded[index, 0, rows[:, :, None], columns[:, None, :]][:, None]


def batches(images: Tensor, labels: Tensor, size: int, shift: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled, augmented batches of one epoch; the last short one is dropped."""
    order = torch.randperm(len(images))
    for start in range(0, len(images) - size + 1, size):
        pick = order[start : start + size]
        yield to_input(augment(images[pick], shift)), labels[pick]


def parameter_groups(model: VisionTransformer, weight_decay: float) -> list[dict[str, object]]:
    """Decay the weight matrices only, not biases, norms or embeddings."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and name not in ("cls_token", "pos_embed")
        (decayed if matrix else plain).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def train_epoch(
    model: VisionTransformer,
    data: Iterator[tuple[Tensor, Tensor]],
    optimizer: Optimizer,
    scheduler: LRScheduler,
) -> float:
    """Run one epoch and return its mean loss."""
    model.train()
    losses = []
    for images, labels in data:
        loss = functional.cross_entropy(model(images), labels, label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def accuracy(model: VisionTransformer, images: Tensor, labels: Tensor, size: int = 500) -> float:
    """Return the top-1 accuracy in percent."""
    model.eval()
    correct = 0
    for chunk, truth in zip(images.split(size), labels.split(size), strict=True):
        correct += int((model(to_input(chunk)).argmax(1) == truth).sum())
    return 100.0 * correct / len(images)


def save(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint so that an interruption never leaves a half-written one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def train(args: argparse.Namespace) -> None:
    """Train for ``args.epochs`` epochs, with a checkpoint after each."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    images, labels = load_tensors("train", args.data)
    test_images, test_labels = load_tensors("t10k", args.data)
    model = VisionTransformer()
    optimizer = AdamW(parameter_groups(model, args.weight_decay), lr=args.lr)
    steps = args.epochs * (len(images) // args.batch_size)
    scheduler = OneCycleLR(optimizer, max_lr=args.lr, total_steps=steps, pct_start=0.15)
    first = 0
    if args.init is not None:
        model.load_state_dict(torch.load(args.init, weights_only=True)["model"])
    if args.resume and args.checkpoint.exists():
        state = torch.load(args.checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["rng"])
        first = state["epoch"]
    for epoch in range(first, args.epochs):
        start = time.perf_counter()
        data = batches(images, labels, args.batch_size, args.shift)
        loss = train_epoch(model, data, optimizer, scheduler)
        top1 = accuracy(model, test_images, test_labels)
        save(
            args.checkpoint,
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "rng": torch.get_rng_state(),
                "epoch": epoch + 1,
                "top1": top1,
            },
        )
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{args.epochs} loss {loss:.4f} top1 {top1:.2f} % {seconds:.0f} s",
            flush=True,
        )


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATASET_DIR, help="folder with the four idx.gz files")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint if there is one")
    parser.add_argument("--init", type=Path, help="start from the weights of this checkpoint")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate of the one-cycle schedule")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--shift", type=int, default=1, help="largest random shift in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    train(parse_args())
