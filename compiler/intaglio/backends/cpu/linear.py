"""linear and patch_embed: matrix products with a constant, requantized per channel."""

from __future__ import annotations

from intaglio.backends.cpu.elementwise import numbers
from intaglio.backends.cpu.ir import Kernel
from intaglio.backends.cpu.launch import Launch, Site, grain, rows
from intaglio.backends.cpu.plain import LinearShape, linear_plain_kernel

ADD_NUMBERS = ("add_a_multiplier", "add_b_multiplier", "add_offset", "add_shift", "add_zero_point")


def lower_linear(site: Site) -> list[Launch]:
    x, weight, bias = site.inputs[:3]
    count, depth = rows(x)
    has_table, has_residual = site.attr("has_table"), site.attr("has_residual")
    shape = LinearShape(
        rows=count,
        depth=depth,
        channels=weight.shape[0],
        x=x.dtype,
        weight=weight.dtype,
        bias=bias.dtype,
        dtype=site.step.attrs["dtype"],
        table=site.inputs[5].dtype if has_table else None,
        residual=site.inputs[-1].dtype if has_residual else None,
        result=site.output.dtype,
    )
    attrs = numbers(site, "zero_point", *(ADD_NUMBERS if has_residual else ()))
    operands = (*map(site.operand, range(5)), attrs, *map(site.operand, range(5, len(site.inputs))), site.result)
    return [Launch(Kernel(linear_plain_kernel, (shape,)), operands, count, grain(depth * shape.channels))]
