"""The static memory plan: sound on random programs, tight on known ones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intaglio.backends.arena import Arena, byte_size, is_alias, plan, verify
from intaglio.program import Program, Step, Tensor
from tests.c.programs import block


def chain(sizes: list[int], ops: list[str], sources: list[int]) -> Program:
    """A program whose step i makes tensor i + 1 of `sizes[i + 1]` bytes from the tensor `sources[i]`."""
    tensors = {f"t{i}": Tensor(f"t{i}", (size,), "int8") for i, size in enumerate(sizes)}
    steps = [
        Step(f"s{i}", op, (f"t{source}",), f"t{i + 1}", {})
        for i, (op, source) in enumerate(zip(ops, sources, strict=True))
    ]
    return Program("random", tensors, steps, "t0", f"t{len(sizes) - 1}")


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Straight-line programs with several readers per tensor, dead results, reshapes, and inner program outputs."""
    count = draw(st.integers(1, 25))
    tensors = {"t0": Tensor("t0", (draw(st.integers(1, 400)),), "uint8")}
    steps = []
    for index in range(1, count + 1):
        sources = draw(st.lists(st.integers(max(0, index - 6), index - 1), min_size=1, max_size=3))
        reshape = draw(st.booleans())
        first = tensors[f"t{sources[0]}"]
        size = first.shape[0] if reshape else draw(st.integers(1, 400))
        dtype = first.dtype if reshape else draw(st.sampled_from(["int8", "int16", "int32"]))
        tensors[f"t{index}"] = Tensor(f"t{index}", (size,), dtype)
        inputs = tuple(f"t{source}" for source in (sources[:1] if reshape else sources))
        steps.append(Step(f"s{index}", "reshape" if reshape else "op", inputs, f"t{index}", {}))
    return Program("random", tensors, steps, "t0", f"t{draw(st.integers(1, count))}")


@settings(max_examples=300, deadline=None)
@given(program=programs(), alignment=st.sampled_from([1, 4, 64]), alias=st.booleans())
def test_plan_is_sound(program: Program, alignment: int, alias: bool) -> None:
    arena = plan(program, alignment=alignment, alias_reshape=alias)
    verify(program, arena)
    callers = {program.input, program.output}
    assert set(arena.offsets) == {tensor.name for tensor in program.activations} - callers
    assert all(offset % alignment == 0 for offset in arena.offsets.values())
    assert arena.size <= sum(byte_size(tensor) + alignment for tensor in program.activations)


@settings(max_examples=100, deadline=None)
@given(program=programs())
def test_every_reshape_of_arena_memory_is_free(program: Program) -> None:
    arena = plan(program)
    for step in program.steps:
        inside = {step.inputs[0], step.output} <= set(arena.offsets)
        assert is_alias(arena, step) == (step.op == "reshape" and inside)


def test_a_chain_needs_two_neighbours_at_a_time() -> None:
    program = chain([8, 100, 200, 100, 200, 8], ["op"] * 5, [0, 1, 2, 3, 4])
    assert plan(program, alignment=1).size == 300


def test_a_program_without_inner_tensors_needs_nothing() -> None:
    assert plan(chain([8, 8], ["reshape"], [0])) == Arena({}, 0)


def test_alignment_must_be_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="alignment must be a power of two, not 48"):
        plan(chain([8, 8], ["op"], [0]), alignment=48)


@pytest.mark.parametrize(
    ("offsets", "sentence"),
    [
        ({"t1": 0, "t2": 4}, "step 's1' writes over its input 't1'"),
        ({"t1": 0, "t2": 100}, "'t2' leaves the workspace of 64 bytes"),
        ({"t1": 0}, "'t2' has no place in the arena"),
    ],
)
def test_verify_refuses_a_bad_plan(offsets: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        verify(chain([8, 8, 8, 8], ["op"] * 3, [0, 1, 2]), Arena(offsets, 64))


def test_verify_refuses_memory_reused_too_early() -> None:
    program = chain([8, 8, 8, 8, 8], ["op"] * 4, [0, 0, 0, 1])
    with pytest.raises(ValueError, match="step 's3' reads 't1' after its memory was reused"):
        verify(program, Arena({"t1": 0, "t2": 8, "t3": 0}, 64))


def test_the_plan_of_a_vision_transformer_is_tight() -> None:
    program = block(depth=3)
    arena = plan(program)
    verify(program, arena)
    at_once = 0
    for index, step in enumerate(program.steps):
        later = {name for other in program.steps[index:] for name in other.inputs}
        alive = {
            name
            for name in arena.offsets
            if name in later and name in {s.output for s in program.steps[:index]}
        }
        homes = {arena.offsets[name] for name in alive | {step.output} if name in arena.offsets}
        at_once = max(
            at_once, sum(_block_bytes(program, arena, home, alive | {step.output}) for home in homes)
        )
    assert arena.size <= 1.1 * at_once


def _block_bytes(program: Program, arena: Arena, home: int, names: set[str]) -> int:
    sizes = [byte_size(program.tensors[name]) for name in names if arena.offsets.get(name) == home]
    return -(-max(sizes) // 64) * 64
