"""Type inference, cost and the sentence of every error."""

from typing import Any

import pytest
from qdq_oracle import SAMPLES, tensor

from intaglio import ops
from intaglio.ops import OPS


def test_every_op_has_a_sample_and_its_own_name() -> None:
    assert list(SAMPLES) == list(OPS)
    assert all(name == op.name and op.summary.endswith(".") for name, op in OPS.items())


@pytest.mark.parametrize("name", OPS)
def test_the_sample_is_inferred(name: str) -> None:
    types, attrs, expected = SAMPLES[name]
    assert OPS[name].infer(types, attrs) == expected


@pytest.mark.parametrize("name", OPS)
def test_a_missing_operand_or_attribute_is_named(name: str) -> None:
    types, attrs, _ = SAMPLES[name]
    with pytest.raises(
        ValueError, match=rf"^{name}: (expects|tensors)" if name != "concat" else "at least one tensor"
    ):
        OPS[name].infer([] if name == "concat" else types[:-1], attrs)
    for attribute in attrs:
        fewer = {key: value for key, value in attrs.items() if key != attribute}
        with pytest.raises(ValueError, match=rf"attribute {attribute.removeprefix('add_')} is missing\.$"):
            OPS[name].infer(types, fewer)


@pytest.mark.parametrize("name", OPS)
def test_an_attribute_of_another_type_is_refused(name: str) -> None:
    types, attrs, _ = SAMPLES[name]
    for attribute in attrs:
        with pytest.raises(
            ValueError, match=rf"attribute {attribute.removeprefix('add_')} must be .*, not 1\.5\.$"
        ):
            OPS[name].infer(types, attrs | {attribute: 1.5})


@pytest.mark.parametrize("name", OPS)
def test_a_float_operand_is_refused(name: str) -> None:
    types, attrs, _ = SAMPLES[name]
    with pytest.raises(ValueError, match=rf"^{name}: (\w+) must be .*int.*, not float32\.$"):
        OPS[name].infer([tensor(types[0].shape, "float32"), *types[1:]], attrs)


FAILURES: list[tuple[str, dict[int, ops.TensorType], dict[str, Any], str]] = [
    ("quantize_input", {1: tensor((1, 256))}, {}, r"table must have shape \[3, 256\], not \[1, 256\]"),
    ("patch_embed", {0: tensor((2, 3, 4))}, {}, r"x must have shape \[B, C, H, W\], not \[2, 3, 4\]"),
    ("patch_embed", {}, {"patch": [3, 2]}, r"patches of \[3, 2\] do not tile an image of \[4, 6\]"),
    ("linear", {1: tensor((7, 11))}, {}, r"weight must have shape \[7, 12\], not \[7, 11\]"),
    ("linear", {2: tensor((7,), "int64")}, {}, "bias must be int32, not int64"),
    ("linear", {3: tensor((6,), "int32")}, {}, r"multiplier must have shape \[7\], not \[6\]"),
    ("linear", {5: tensor((65536,), "int16")}, {}, r"table must have shape \[256\], not \[65536\]"),
    ("linear", {6: tensor((7,))}, {}, r"residual must have shape \[5, 7\], not \[7\]"),
    ("linear", {}, {"zero_point": 128}, "zero_point must be an integer in -128..127, not 128"),
    ("linear", {}, {"acc_dtype": "int16"}, "acc_dtype must be int32 or int64, not 'int16'"),
    (
        "matmul",
        {},
        {"transpose_b": 0},
        r"shapes \[2, 3, 5\] and \[2, 4, 5\] do not match with transpose_b = 0",
    ),
    ("matmul", {1: tensor((1, 4, 5))}, {}, "do not match"),
    ("matmul", {0: tensor((5,))}, {}, r"a must have at least 2 dimensions, not shape \[5\]"),
    ("matmul", {}, {"shift": 63}, "shift must be an integer in 1..62, not 63"),
    ("attention", {1: tensor((1, 2, 7, 4))}, {}, r"attention: expects q \[B, H, M, D\], k \[B, H, n, D\]"),
    ("attention", {}, {"score_dtype": "int16"}, r"exp_table must have shape \[2, 256\], not \[1, 256\]"),
    ("attention", {}, {"shift": 49}, "shift must be an integer in 1..48, not 49"),
    ("softmax", {1: tensor((2, 256), "int32")}, {}, "exp_table must be uint32, not int32"),
    ("moe", {1: tensor((2, 4, 3))}, {}, r"logits must have shape \[2, 5, 3\], not \[2, 4, 3\]"),
    ("moe", {3: tensor((4, 9, 12))}, {}, r"weight1 must have shape \[3, 9, 12\], not \[4, 9, 12\]"),
    ("moe", {8: tensor((3, 7, 8))}, {}, r"weight2 must have shape \[3, 7, 9\], not \[3, 7, 8\]"),
    ("moe", {9: tensor((3, 7), "int32")}, {}, "bias2 must be int64, not int32"),
    ("moe", {7: tensor((2, 256))}, {}, r"table must have shape \[3, 256\], not \[2, 256\]"),
    ("moe", {}, {"k": 4}, r"k must be an integer in 1\.\.3, not 4"),
    ("moe", {}, {"shift": 49}, r"shift must be an integer in 1\.\.48, not 49"),
    ("layernorm", {0: tensor((2, 5000))}, {}, r"the last axis must have 1..4096 elements, not 5000"),
    ("layernorm", {}, {"mean": "median"}, "mean must be exact or rounded, not 'median'"),
    ("table", {0: tensor((5,), "int16")}, {}, r"table must have shape \[65536\], not \[256\]"),
    ("add", {1: tensor((5, 1))}, {}, r"b's shape \[5, 1\] must be a suffix of a's \[5, 8\]"),
    ("add", {1: tensor((5, 5, 8))}, {}, r"must be a suffix"),
    ("add", {}, {"a_multiplier": 1 << 26}, "a_multiplier must be an integer in -67108863..67108863"),
    ("add", {}, {"b_multiplier": -(1 << 26)}, "b_multiplier must be an integer in -67108863..67108863"),
    ("add", {}, {"a_multiplier": True}, "a_multiplier must be an integer in .*, not True"),
    ("rescale", {1: tensor((2,), "int32")}, {}, r"multiplier must have shape \[8\], not \[2\]"),
    ("mean", {}, {"axis": 3}, "axis must be an integer in 0..2, not 3"),
    ("reshape", {}, {"shape": [3, 5]}, r"\[2, 6\] cannot take the shape \[3, 5\]"),
    ("reshape", {}, {"shape": [-3, -4]}, "cannot take the shape"),
    ("transpose", {}, {"axes": [0, 1, 1]}, r"axes must permute 0..2, not \[0, 1, 1\]"),
    ("slice", {}, {"end": [6, 5]}, "axis 0 needs 0 <= begin < end <= 5 and a positive stride, not 1:6:2"),
    ("slice", {}, {"strides": [1]}, r"strides must be a list of 2 integers, not \[1\]"),
    (
        "concat",
        {1: tensor((3, 1))},
        {},
        r"tensors int8 \[2, 3\] and int8 \[3, 1\] do not match except on axis 1",
    ),
    ("concat", {1: tensor((2, 1), "int16")}, {}, "do not match"),
    ("gather", {}, {"indices": [3]}, r"indices must be a non-empty list within 0..2, not \[3\]"),
    ("broadcast", {}, {"shape": [4, 2]}, r"\[1, 3\] does not broadcast to \[4, 2\]"),
    ("broadcast", {}, {"shape": [3]}, "does not broadcast"),
    ("argmax", {}, {"axis": -1}, "axis must be an integer in 0..1, not -1"),
    ("topk", {}, {"k": 6}, "k must be an integer in 1..5, not 6"),
]


@pytest.mark.parametrize(("name", "operands", "attributes", "sentence"), FAILURES)
def test_what_does_not_fit_is_refused_in_a_sentence(
    name: str, operands: dict[int, ops.TensorType], attributes: dict[str, Any], sentence: str
) -> None:
    types, attrs, _ = SAMPLES[name]
    with pytest.raises(ValueError, match=sentence) as caught:
        OPS[name].infer([operands.get(i, kind) for i, kind in enumerate(types)], attrs | attributes)
    assert str(caught.value).startswith(f"{name}: ") or name == "linear"
    assert str(caught.value).endswith(".")


def test_an_unknown_op_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="no integer op 'layer_norm'; did you mean 'layernorm'"):
        ops.get("layer_norm")
    with pytest.raises(ValueError, match="no integer op 'xyz'"):
        ops.get("xyz")


@pytest.mark.parametrize("name", OPS)
def test_cost_is_not_negative_and_counts_constants(name: str) -> None:
    types, attrs, _ = SAMPLES[name]
    cost = OPS[name].cost(types, attrs)
    assert min(vars(cost).values()) >= 0
    assert cost.bytes_moved > 0 or name == "reshape"


def test_the_cost_of_a_deit_tiny_block_is_that_of_the_paper() -> None:
    """DeiT-Tiny is 1.26 GMAC, 12 blocks of which are 1.23."""
    tokens, width = 197, 192
    macs = 0
    for depth, channels in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
        constants = [tensor((channels,), "int32")] * 3
        types = [tensor((1, tokens, depth)), tensor((channels, depth)), *constants]
        attrs = {"acc_dtype": "int32", "zero_point": 0, "dtype": "int8", "has_table": 0, "has_residual": 0}
        macs += OPS["linear"].cost(types, attrs).macs
    heads = tensor((1, 3, tokens, 64))
    attention = [heads, heads, heads, tensor((1, 256), "uint32")]
    macs += OPS["attention"].cost(attention, SAMPLES["attention"][1]).macs
    assert 12 * macs == pytest.approx(1.23e9, rel=0.01)
