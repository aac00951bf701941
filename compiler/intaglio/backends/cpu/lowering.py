"""From steps to launches: one lowering per op."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from intaglio.backends.arena import Arena, is_alias
from intaglio.backends.cpu.attention import lower_attention
from intaglio.backends.cpu.elementwise import lower_add, lower_mean, lower_rescale
from intaglio.backends.cpu.isa import Isa
from intaglio.backends.cpu.launch import Launch, Site
from intaglio.backends.cpu.layernorm import lower_layernorm
from intaglio.backends.cpu.linear import lower_linear
from intaglio.backends.cpu.matmul import lower_matmul
from intaglio.backends.cpu.moe import lower_moe
from intaglio.backends.cpu.movement import (
    lower_broadcast,
    lower_concat,
    lower_gather,
    lower_reshape,
    lower_slice,
    lower_transpose,
)
from intaglio.backends.cpu.patch_embed import lower_patch_embed
from intaglio.backends.cpu.ranking import lower_argmax, lower_topk
from intaglio.backends.cpu.softmax import lower_softmax
from intaglio.backends.cpu.table import lower_quantize_input, lower_table
from intaglio.program import Program, Step

LOWERINGS: dict[str, Callable[[Site], list[Launch]]] = {
    "quantize_input": lower_quantize_input,
    "patch_embed": lower_patch_embed,
    "linear": lower_linear,
    "matmul": lower_matmul,
    "attention": lower_attention,
    "softmax": lower_softmax,
    "moe": lower_moe,
    "layernorm": lower_layernorm,
    "table": lower_table,
    "add": lower_add,
    "rescale": lower_rescale,
    "mean": lower_mean,
    "reshape": lower_reshape,
    "transpose": lower_transpose,
    "slice": lower_slice,
    "concat": lower_concat,
    "gather": lower_gather,
    "broadcast": lower_broadcast,
    "argmax": lower_argmax,
    "topk": lower_topk,
}


def lower(program: Program, arena: Arena, isa: Isa) -> Iterator[tuple[Step, list[Launch]]]:
    """The launches of every step that costs anything, in order."""
    for step in program.steps:
        if not is_alias(arena, step):
            yield step, LOWERINGS[step.op](Site(step, program.tensors, isa))
