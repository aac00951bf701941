"""M3ViT-Tiny at the sizes of Edge-MoE's accelerator, with seeded weights."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fashion_mnist"))

from moe import Block, Moe
from numpy.typing import NDArray
from vit import LAYER_NORM_EPS, Mlp

CHANNELS, HEIGHT, WIDTH = 3, 128, 256
PATCH = 16
DIM, HEADS, DEPTH = 192, 3, 12
HIDDEN, EXPERT_HIDDEN = 768, 384
EXPERTS, TOP_K, TASKS = 16, 2, 2
GATE_SCALE = 1.5
"""Makes the two probabilities of a token sum to about 0.4, as Edge-MoE's example image does."""
TOKENS = (HEIGHT // PATCH) * (WIDTH // PATCH) + 1


class M3ViT(nn.Module):
    """The encoder: odd layers hold mixtures of experts, with one gate per task.

    It returns the residual stream after the last layer, and normalises it only if asked to:
    the published accelerator leaves that, and the decoders of the tasks, to the host.
    """

    def __init__(self, final_norm: bool = False) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(CHANNELS, DIM, kernel_size=PATCH, stride=PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, DIM))
        self.pos_embed = nn.Parameter(torch.zeros(1, TOKENS, DIM))
        self.blocks = nn.ModuleList(
            Block(DIM, HEADS, Moe(DIM, EXPERT_HIDDEN, EXPERTS, TOP_K, TASKS) if odd else Mlp(DIM, HIDDEN))
            for odd in (layer % 2 == 1 for layer in range(DEPTH))
        )
        self.norm = nn.LayerNorm(DIM, eps=LAYER_NORM_EPS) if final_norm else nn.Identity()

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        """Return the tokens (batch, TOKENS, DIM) of ``image`` (batch, CHANNELS, HEIGHT, WIDTH) for ``task``."""
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x, task)
        return self.norm(x)

    def mixtures(self) -> list[Moe]:
        """Return the mixtures of experts, in the order of the layers."""
        return [block.mlp for block in self.blocks if isinstance(block.mlp, Moe)]


def seeded(seed: int = 2023, final_norm: bool = False) -> M3ViT:
    """Return the model with seeded weights, in evaluation mode."""
    model = M3ViT(final_norm)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = initial(name, tuple(parameter.shape), rng).astype(np.float32)
            parameter.copy_(torch.from_numpy(values))
    spread_tokens(model.eval())
    return model


def spread_tokens(model: M3ViT) -> None:
    """Make every gate blind to what all tokens have in common, as a balancing loss would.

    With random gates, that common part would send most tokens of a layer to the same experts.
    """
    sample = torch.from_numpy(images(2, seed=0))
    for task in range(TASKS):
        hooks = [mixture.register_forward_pre_hook(remove_mean) for mixture in model.mixtures()]
        with torch.no_grad():
            model(sample, torch.tensor(task))
        for hook in hooks:
            hook.remove()


def remove_mean(mixture: Moe, arguments: tuple[Tensor, Tensor]) -> None:
    """Project the mean token out of the gate of the task at hand."""
    tokens, task = arguments
    mean = functional.normalize(tokens.mean((0, 1)), dim=0)
    gate = mixture.gate.weight[task]
    gate -= (gate @ mean)[:, None] * mean


def initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw one parameter: heavy-tailed matrices, gains near 1, small biases."""
    if name in ("cls_token", "pos_embed"):
        return 0.5 * rng.standard_normal(shape)
    if len(shape) == 1:
        gain = ".norm" in name and name.endswith("weight")
        return np.exp(0.2 * rng.standard_normal(shape)) if gain else 0.1 * rng.standard_normal(shape)
    gate = ".gate." in name
    inputs = shape[-1] if gate else int(np.prod(shape[1:]))
    return (GATE_SCALE if gate else 1) * rng.standard_t(6, shape) / np.sqrt(1.5 * inputs)


def images(count: int, seed: int) -> NDArray[np.float32]:
    """Return seeded images (count, CHANNELS, HEIGHT, WIDTH) with a 1/f spectrum, about zero mean and unit variance."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(HEIGHT), np.fft.rfftfreq(WIDTH)
    frequency = np.hypot(rows[:, None], columns[None, :])
    frequency[0, 0] = 1 / WIDTH
    phase = np.exp(2j * np.pi * rng.random((count, CHANNELS, *frequency.shape)))
    planes = np.fft.irfft2(phase / frequency, s=(HEIGHT, WIDTH))
    planes += planes[:, :1]
    planes -= planes.mean((-2, -1), keepdims=True)
    return np.clip(planes / planes.std((-2, -1), keepdims=True), -2, 2).astype(np.float32)
