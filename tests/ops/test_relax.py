"""The Relax operators: registration, inference, attributes."""

from typing import Any

import pytest
from qdq_oracle import SAMPLES

from intaglio.ops import OPS

tvm = pytest.importorskip("tvm", reason="the Relax operators need TVM")
from tvm import relax  # noqa: E402

from intaglio.ops import relax as integer_relax  # noqa: E402


def sample_call(name: str, **changes: Any) -> Any:
    types, attrs, _ = SAMPLES[name]
    args = [relax.Var(f"x{i}", relax.TensorType(t.shape, t.dtype)) for i, t in enumerate(types)]
    return integer_relax.call(name, args, attrs | changes)


@pytest.mark.parametrize("name", OPS)
def test_relax_infers_what_the_op_infers(name: str) -> None:
    inferred = relax.BlockBuilder().normalize(sample_call(name))
    assert integer_relax.type_of(inferred) == SAMPLES[name][2]
    assert integer_relax.op_name(inferred) == name


@pytest.mark.parametrize("name", OPS)
def test_attributes_survive_relax_and_its_json(name: str) -> None:
    call = sample_call(name)
    assert integer_relax.attrs_of(call) == SAMPLES[name][1]
    args = list(call.args)
    builder = relax.BlockBuilder()
    with builder.function("main", args):
        builder.emit_func_output(builder.emit(call))
    loaded = tvm.ir.load_json(tvm.ir.save_json(builder.get()))
    again = loaded["main"].body.blocks[0].bindings[0].value
    attrs = integer_relax.attrs_of(again)
    assert attrs == SAMPLES[name][1]
    assert all(type(attrs[key]) is type(value) for key, value in SAMPLES[name][1].items())


@pytest.mark.parametrize("value", [2**61, -(2**61), 2**31, -(2**31) - 1, 2**53 + 1])
def test_wide_integers_survive(value: int) -> None:
    assert integer_relax.attrs_of(sample_call("add", offset=value))["offset"] == value


def test_nested_attributes_become_plain_python() -> None:
    attrs = {"shape": [3, 4], "nested": {"list": [[1], [2, 3]], "text": "x"}, "empty": []}
    call = sample_call("reshape", **attrs)
    assert integer_relax.attrs_of(call) == attrs
    assert type(integer_relax.attrs_of(call)["nested"]["list"][1]) is list


def test_registration_is_idempotent_and_ops_are_pure() -> None:
    integer_relax.register()
    for name in OPS:
        operator = tvm.ir.Op.get(f"intaglio.{name}")
        assert operator.get_attr("FPurity")
        assert operator.has_attr("FInferType")


def test_a_call_that_does_not_fit_fails_with_the_op_s_sentence() -> None:
    with pytest.raises(ValueError, match=r"topk: attribute k must be an integer in 1\.\.5, not 6"):
        relax.BlockBuilder().normalize(sample_call("topk", k=6))
    with pytest.raises(ValueError, match="no integer op 'soft_max'; did you mean 'softmax'"):
        integer_relax.call("soft_max", [], {})


def test_a_dynamic_shape_is_refused() -> None:
    batch = tvm.tirx.Var("batch", "int64")
    x = relax.Var("x", relax.TensorType((batch, 5), "int8"))
    with pytest.raises(ValueError, match="expects a tensor of static shape"):
        relax.BlockBuilder().normalize(integer_relax.call("topk", [x], {"k": 2}))
    with pytest.raises(ValueError, match="expects a tensor of static shape"):
        integer_relax.type_of(relax.Var("s", relax.ShapeType(ndim=2)))


def test_op_name_of_other_expressions_is_none() -> None:
    x = relax.Var("x", relax.TensorType((2,), "int8"))
    assert integer_relax.op_name(x) is None
    assert integer_relax.op_name(relax.op.add(x, x)) is None
