"""attention: scores, exponentials and weighted values of a block of rows, without leaving the cache."""

from __future__ import annotations

from intaglio.backends.cpu.elementwise import numbers
from intaglio.backends.cpu.ir import Kernel
from intaglio.backends.cpu.launch import Launch, Scratch, Site
from intaglio.backends.cpu.plain import ATTENTION_NUMBERS, AttentionShape, attention_plain_kernel


def attention_shape(site: Site) -> AttentionShape:
    q, k, v = site.inputs[:3]
    return AttentionShape(
        heads=q.shape[0] * q.shape[1],
        rows=q.shape[2],
        keys=k.shape[2],
        depth=q.shape[3],
        value_depth=v.shape[3],
        q=q.dtype,
        k=k.dtype,
        v=v.dtype,
        score=site.step.attrs["score_dtype"],
        e_bits=site.attr("e_bits"),
        acc_shift=site.attr("acc_shift"),
        result=site.output.dtype,
    )


def lower_attention(site: Site) -> list[Launch]:
    shape = attention_shape(site)
    attrs = numbers(site, *ATTENTION_NUMBERS)
    scratch = (Scratch(4 * shape.keys), Scratch(4 * shape.keys))
    operands = (*map(site.operand, range(4)), attrs, *scratch, site.result)
    return [Launch(Kernel(attention_plain_kernel, (shape,)), operands, shape.heads * shape.rows)]
