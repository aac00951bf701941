"""matmul: the product of two activations, requantized."""

from __future__ import annotations

import math

from intaglio.backends.cpu.elementwise import numbers
from intaglio.backends.cpu.ir import Kernel
from intaglio.backends.cpu.launch import Launch, Site
from intaglio.backends.cpu.plain import ProductShape, matmul_plain_kernel


def lower_matmul(site: Site) -> list[Launch]:
    a, b = site.inputs
    transpose_b = bool(site.attr("transpose_b"))
    batch = math.prod(a.shape[:-2])
    columns = b.shape[-2] if transpose_b else b.shape[-1]
    shape = ProductShape(batch, a.shape[-2], a.shape[-1], columns, a.dtype, b.dtype, transpose_b, site.output.dtype)
    attrs = numbers(site, "a_zero", "b_zero", "multiplier", "shift", "zero_point")
    operands = (site.operand(0), site.operand(1), attrs, site.result)
    return [Launch(Kernel(matmul_plain_kernel, (shape,)), operands, batch * shape.rows)]
