"""The small vision transformer with mixtures of experts, as in M3ViT, for one task or for several."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from vit import LAYER_NORM_EPS, Attention, Mlp

TASKS = {"class": 10, "group": 5}
"""The tasks of the multi-task model, in the order of their numbers: name, labels."""

GROUP_OF_CLASS = (0, 1, 0, 2, 0, 3, 0, 3, 4, 3)
"""The garment group of every class: tops, trousers, dress, footwear, bag."""


class Shared(nn.Linear):
    """A linear layer that is the same for every task."""

    def forward(self, x: Tensor, _task: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., in), whatever the task."""
        return functional.linear(x, self.weight, self.bias)


class PerTask(nn.Module):
    """Linear layers of one shape, one per task, stacked along the first axis."""

    def __init__(self, tasks: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(tasks, outputs, inputs), std=0.02))
        self.bias = nn.Parameter(torch.zeros(tasks, outputs)) if bias else None

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Apply the layer of ``task`` (int64 scalar) to ``x`` (..., in)."""
        if task is None:
            raise ValueError("the model has several tasks: pass the number of one")
        bias = None if self.bias is None else pick(self.bias, task)
        return functional.linear(x, pick(self.weight, task), bias)


def pick(stack: Tensor, task: Tensor) -> Tensor:
    """Return entry ``task`` (int64 scalar) of the first axis."""
    return torch.index_select(stack, 0, task.reshape(1)).squeeze(0)


def linear(tasks: int, inputs: int, outputs: int, bias: bool) -> Shared | PerTask:
    """Return a layer for one task, or one that takes the task's number."""
    return Shared(inputs, outputs, bias) if tasks == 1 else PerTask(tasks, inputs, outputs, bias)


class Moe(nn.Module):
    """The ``k`` experts of the largest gate logits, weighted by their softmax probabilities.

    The softmax is over all experts, and the ``k`` probabilities are not scaled up to sum to one.
    In training, ``jitter`` is the deviation of noise added to the gate's input, and every call
    leaves its ``balance`` and ``hinge`` losses in the module.
    """

    def __init__(self, dim: int, hidden: int, experts: int, k: int, tasks: int) -> None:
        super().__init__()
        self.k = k
        self.jitter = 0.0
        self.dense = False
        self.gate = linear(tasks, dim, experts, bias=False)
        self.experts = nn.ModuleList(Mlp(dim, hidden) for _ in range(experts))
        self.balance = self.hinge = torch.zeros(())

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Transform every token of ``x`` (batch, tokens, dim)."""
        noisy = x + self.jitter * torch.randn_like(x) if self.training else x
        logits = self.gate(noisy, task)
        probability = functional.softmax(logits, dim=-1)
        chosen = logits.topk(self.k, dim=-1).indices
        share = torch.zeros_like(probability).scatter(-1, chosen, probability.gather(-1, chosen))
        if self.training:
            self.balance = balance_loss(probability, share)
            self.hinge = hinge_loss(logits, self.k)
        return self.every_expert(x, share) if self.dense else self.chosen_experts(x, share)

    def every_expert(self, x: Tensor, share: Tensor) -> Tensor:
        """Compute all experts on all tokens; ``share`` (batch, tokens, experts) is mostly zero."""
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-2)
        return (outputs * share.unsqueeze(-1)).sum(-2)

    def chosen_experts(self, x: Tensor, share: Tensor) -> Tensor:
        """Compute every expert on the tokens that chose it."""
        tokens, shares = x.flatten(0, 1), share.flatten(0, 1)
        mixed = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            rows = shares[:, index].nonzero().squeeze(1)
            mixed = mixed.index_add(0, rows, expert(tokens[rows]) * shares[rows, index, None])
        return mixed.view_as(x)


def balance_loss(probability: Tensor, share: Tensor) -> Tensor:
    """Return 1 when all experts get the same number of tokens, and more otherwise.

    Experts times the scalar product of the share of choices and the mean probability, as in
    Switch Transformers (arXiv 2101.03961, equation 4).
    """
    used = (share > 0).float().flatten(0, -2).mean(0)
    return share.shape[-1] * (used / used.sum() * probability.flatten(0, -2).mean(0)).sum()


def hinge_loss(logits: Tensor, k: int, width: float = 1.0) -> Tensor:
    """Return how far the gap between the k-th and the next logit falls short of ``width``."""
    largest = logits.topk(k + 1, dim=-1).values
    return functional.relu(width - (largest[..., k - 1] - largest[..., k])).mean()


class Block(nn.Module):
    """One pre-norm transformer block, with a dense MLP or a mixture of experts."""

    def __init__(self, dim: int, heads: int, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = mlp

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Apply the block to ``x`` (batch, tokens, dim)."""
        x = x + self.attn(self.norm1(x))
        y = self.norm2(x)
        return x + (self.mlp(y, task) if isinstance(self.mlp, Moe) else self.mlp(y))


class MoeTransformer(nn.Module):
    """ViT whose odd blocks hold mixtures of experts; of several tasks, the longest head sets the width."""

    def __init__(
        self,
        tasks: int = 1,
        image_size: int = 28,
        patch_size: int = 4,
        classes: int = 10,
        dim: int = 64,
        depth: int = 4,
        heads: int = 4,
        hidden: int = 128,
        experts: int = 8,
        expert_hidden: int = 64,
        k: int = 2,
    ) -> None:
        super().__init__()
        tokens = (image_size // patch_size) ** 2 + 1
        self.patch_embed = nn.Conv2d(1, dim, kernel_size=patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        self.blocks = nn.ModuleList(
            Block(dim, heads, Moe(dim, expert_hidden, experts, k, tasks) if odd else Mlp(dim, hidden))
            for odd in (layer % 2 == 1 for layer in range(depth))
        )
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.head = linear(tasks, dim, classes, bias=True)

    def forward(self, image: Tensor, task: Tensor | None = None) -> Tensor:
        """Return the logits of ``task`` for ``image`` (batch, 1, height, width)."""
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x, task)
        return self.head(self.norm(x)[:, 0], task)

    def mixtures(self) -> list[Moe]:
        """Return the mixtures of experts, in the order of the blocks."""
        return [block.mlp for block in self.blocks if isinstance(block.mlp, Moe)]
