"""patch_embed: patches gathered into rows, then a linear."""

from __future__ import annotations

import math
from dataclasses import replace

from intaglio.backends.cpu.ir import Kernel
from intaglio.backends.cpu.launch import Activation, Launch, Site, Temporary, grain, size
from intaglio.backends.cpu.linear import lower_linear
from intaglio.backends.cpu.movement import copy_kernel, merge, strides
from intaglio.program import Step, Tensor


def lower_patch_embed(site: Site) -> list[Launch]:
    """Launches of one patch_embed."""
    x, weight = site.inputs[:2]
    (batch, channels, height, width), (ph, pw) = x.shape, site.step.attrs["patch"]
    blocks = (batch, height // ph, width // pw, channels, ph, pw)
    b, c, y, _ = strides(x.shape)
    axes = merge(list(zip(blocks, (b, y * ph, pw, c, y, 1), strides(blocks), strict=True)))
    sizes = (size(x), math.prod(blocks))
    gathered = Tensor(f"{site.step.name}.rows", (math.prod(blocks[:3]), weight.shape[1]), x.dtype)
    made = Kernel(copy_kernel, (x.dtype, axes, (0, 0), sizes))
    temporary = Temporary(gathered.name, size(gathered) * (1 if x.dtype == "int8" else 2))
    copy = Launch(made, (site.operand(0), temporary), math.prod(a[0] for a in axes[:-1]), grain(axes[-1][0]))
    return [copy, *(_reading(launch, temporary) for launch in lower_linear(_linear_site(site, gathered)))]


def _linear_site(site: Site, gathered: Tensor) -> Site:
    """The linear that follows, reading the gathered rows."""
    attrs = {**site.step.attrs, "has_table": 0, "has_residual": 0}
    step = Step(site.step.name, "linear", (gathered.name, *site.step.inputs[1:]), site.step.output, attrs)
    return replace(site, step=step, tensors={**site.tensors, gathered.name: gathered})


def _reading(launch: Launch, temporary: Temporary) -> Launch:
    """The launch with the temporary in place of the tensor of its name."""
    found = Activation(temporary.name)
    return replace(
        launch, operands=tuple(temporary if operand == found else operand for operand in launch.operands)
    )
