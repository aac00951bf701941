"""From a step of the program to calls of C functions: which variant, which arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from intaglio.backends.c.call import Call, Function, Lowering, Value, element_count, row_count
from intaglio.backends.c.moe import moe
from intaglio.backends.c.names import ctype, short
from intaglio.ops.linear import task_flag
from intaglio.program import Tensor


def calls(lowering: Lowering) -> list[Call]:
    """The calls that execute one step, in order."""
    return LOWER[lowering.step.op](lowering)


# --- products ---------------------------------------------------------------------------------------------------


def _linear(low: Lowering) -> list[Call]:
    x = low.inputs[0]
    fields: dict[str, Value] = {"rows": row_count(x), **_weights(low)}
    types = _linear_types(low)
    name = _linear_name("linear", types)
    if low.attrs["has_table"]:
        table = low.inputs[5]
        types |= {"table": ctype(table.dtype), "value": table.dtype}
        name += f"_table_{short(table.dtype)}"
        fields["table"] = low.constants.add(table)
    inputs = [low.step.inputs[0]]
    if low.attrs["has_residual"]:
        residual = low.inputs[5 + low.attrs["has_table"]]
        types |= {"residual": ctype(residual.dtype)}
        name += f"_add_{short(residual.dtype)}_{short(low.output.dtype)}"
        fields |= {f"add_{key}": int(low.attrs[f"add_{key}"]) for key in _ADD_FIELDS}
        inputs.append(residual.name)
    types |= {"out": ctype(low.output.dtype), "out_short": short(low.output.dtype)}
    scratch = 2 * x.shape[-1] if x.dtype == "int8" else 0
    return [Call(Function(name, "linear", types), tuple(inputs), fields, scratch)]


def _patch_embed(low: Lowering) -> list[Call]:
    x = low.inputs[0]
    batch, channels, height, width = x.shape
    patch_height, patch_width = low.attrs["patch"]
    fields: dict[str, Value] = {
        "batch": batch, "channels": channels, "height": height, "width": width,
        "patch_height": int(patch_height), "patch_width": int(patch_width), **_weights(low),
    }  # fmt: skip
    types = _linear_types(low) | {"out": ctype(low.output.dtype), "out_short": short(low.output.dtype)}
    name = _linear_name("patch_embed", types)
    return [
        Call(Function(name, "patch_embed", types), low.step.inputs[:1], fields, 2 * low.inputs[1].shape[1])
    ]


def _linear_types(low: Lowering) -> dict[str, Any]:
    """Variant of the product: the row is int16, widened where x is int8."""
    x, weight = low.inputs[:2]
    dtype = low.attrs["dtype"]
    wide = low.attrs["acc_dtype"] == "int64"
    return {
        "x": ctype(x.dtype), "x_short": short(x.dtype),
        "weight": ctype(weight.dtype), "weight_short": short(weight.dtype),
        "acc": ctype(low.attrs["acc_dtype"]), "dot": f"dot_i16x{short(weight.dtype)}{'_acc64' if wide else ''}",
        "y": ctype(dtype), "y_short": short(dtype), "value": dtype, "y_min": f"{dtype.upper()}_MIN",
        "table": "", "residual": "",
    }  # fmt: skip


def _linear_name(op: str, types: Mapping[str, Any]) -> str:
    acc = "_acc64" if types["acc"] == "int64_t" else ""
    return f"{op}_{types['x_short']}x{types['weight_short']}_{types['y_short']}{acc}"


def _weights(low: Lowering) -> dict[str, Value]:
    weight, bias, multiplier, shift = low.inputs[1:5]
    outputs, inputs = weight.shape[-2:]
    return {
        "inputs": inputs,
        "outputs": outputs,
        "weight": _of_task(low, weight, weight.dtype),
        "bias": _of_task(low, bias, low.attrs["acc_dtype"]),
        "multiplier": _of_task(low, multiplier, multiplier.dtype),
        "shift": _of_task(low, shift, "uint8"),
        **low.pick("zero_point"),
    }


def _of_task(low: Lowering, tensor: Tensor, dtype: str) -> str:
    """A constant, or with tasks the part that belongs to the one that runs."""
    expression = low.constants.add(tensor, dtype)
    return (
        f"{expression} + task * {element_count(tensor) // tensor.shape[0]}"
        if task_flag(low.attrs)
        else expression
    )


def _centred(tensor: Tensor, zero_point: int) -> str:
    """The narrowest of int16 and int32 that holds every `q - zero_point`."""
    limits = np.iinfo(tensor.dtype)
    return "int16" if limits.max - zero_point <= 32767 and limits.min - zero_point >= -32768 else "int32"


def _widest(dtypes: Sequence[str]) -> str:
    return max(dtypes, key=lambda dtype: np.dtype(dtype).itemsize)


def _dot(operand: str, acc_dtype: str) -> str:
    return f"dot_{short(operand)}x{short(operand)}{'_acc64' if acc_dtype == 'int64' else ''}"


def _matmul(low: Lowering) -> list[Call]:
    a, b = low.inputs
    rows, depth = a.shape[-2:]
    columns = low.output.shape[-1]
    transposed = bool(low.attrs["transpose_b"])
    acc_dtype, dtype = low.attrs["acc_dtype"], low.attrs["dtype"]
    operand = _widest([_centred(a, low.attrs["a_zero"]), _centred(b, low.attrs["b_zero"])])
    types = {
        "a": ctype(a.dtype), "b": ctype(b.dtype), "out": ctype(dtype), "out_short": short(dtype),
        "operand": ctype(operand), "acc": ctype(acc_dtype), "dot": _dot(operand, acc_dtype), "transposed": transposed,
    }  # fmt: skip
    name = f"matmul_{short(a.dtype)}x{short(b.dtype)}_{short(dtype)}"
    name += ("_transposed" if transposed else "") + ("_wide" if operand == "int32" else "")
    name += "_acc64" if acc_dtype == "int64" else ""
    fields: dict[str, Value] = {
        "batch": math.prod(a.shape[:-2]),
        "rows": rows,
        "depth": depth,
        "columns": columns,
    }
    fields |= low.pick("a_zero", "b_zero", "multiplier", "shift", "zero_point")
    scratch = (columns + 1) * depth * np.dtype(operand).itemsize
    return [Call(Function(name, "matmul", types), low.step.inputs, fields, scratch)]


# --- attention ---------------------------------------------------------------------------------------------------


def _attention(low: Lowering) -> list[Call]:
    q, k, v, table = low.inputs
    batch, heads, rows, depth = q.shape
    keys, width = v.shape[2:]
    operand = _attention_operand(low)
    types = _attention_types(low, operand)
    name = f"attention_{short(q.dtype)}x{short(k.dtype)}x{short(v.dtype)}_{short(low.attrs['dtype'])}"
    name += f"_score_{short(low.attrs['score_dtype'])}" + ("_wide" if operand == "int32" else "")
    name += "_score64" if low.attrs["score_acc_dtype"] == "int64" else ""
    name += "_acc64" if low.attrs["acc_dtype"] == "int64" else ""
    fields: dict[str, Value] = {
        "heads": batch * heads,
        "rows": rows,
        "keys": keys,
        "depth": depth,
        "width": width,
    }
    fields |= low.pick("q_zero", "k_zero", "v_zero", "score_multiplier", "score_shift", "score_zero")
    fields |= {"exp_table": low.constants.add(table)}
    fields |= _row_fields(low, low.attrs["score_dtype"]) | {"acc_shift": int(low.attrs["acc_shift"])}
    scratch = (keys * depth + keys * width + depth + keys) * np.dtype(operand).itemsize
    return [Call(Function(name, "attention", types), low.step.inputs[:3], fields, scratch)]


def _attention_operand(low: Lowering) -> str:
    """One type for every operand in scratch: centred q, k and v, scores and exponentials."""
    zeros = (low.attrs["q_zero"], low.attrs["k_zero"], low.attrs["v_zero"])
    centred = [_centred(tensor, zero) for tensor, zero in zip(low.inputs[:3], zeros, strict=True)]
    weight = "int16" if low.attrs["e_bits"] <= 15 else "int32"
    return _widest([*centred, weight])


def _attention_types(low: Lowering, operand: str) -> dict[str, Any]:
    q, k, v = low.inputs[:3]
    score, dtype = low.attrs["score_dtype"], low.attrs["dtype"]
    return {
        "q": ctype(q.dtype), "k": ctype(k.dtype), "v": ctype(v.dtype), "out": ctype(dtype), "out_short": short(dtype),
        "operand": ctype(operand), "score": ctype(score), "score_short": short(score),
        "score_min": f"{score.upper()}_MIN", "acc": ctype(low.attrs["acc_dtype"]),
        "score_dot": _dot(operand, low.attrs["score_acc_dtype"]), "dot": _dot(operand, low.attrs["acc_dtype"]),
        "exponential": f"exponential_{short(score)}", "wide_scores": score == "int16",
    }  # fmt: skip


def _row_fields(low: Lowering, score_dtype: str) -> dict[str, Value]:
    """Fields of the exponential and of the division once per row."""
    e_bits = int(low.attrs["e_bits"])
    fields: dict[str, Value] = {"exp_shift": 60 - e_bits} if score_dtype == "int16" else {}
    fields["numerator"] = int(low.attrs["multiplier"]) << (e_bits - 1)
    fields["shift"] = int(low.attrs["shift"]) + e_bits - 1 - int(low.attrs.get("acc_shift", 0))
    return fields | low.pick("zero_point")


def _softmax(low: Lowering) -> list[Call]:
    x, table = low.inputs
    dtype = low.attrs["dtype"]
    types = {
        "x": ctype(x.dtype), "out": ctype(dtype), "out_short": short(dtype), "x_min": f"{x.dtype.upper()}_MIN",
        "exponential": f"exponential_{short(x.dtype)}", "wide_scores": x.dtype == "int16",
    }  # fmt: skip
    fields: dict[str, Value] = {
        "rows": row_count(x),
        "columns": x.shape[-1],
        "exp_table": low.constants.add(table),
    }
    name = f"softmax_{short(x.dtype)}_{short(dtype)}"
    return [Call(Function(name, "softmax", types), low.step.inputs[:1], fields | _row_fields(low, x.dtype))]


# --- rows and elements -------------------------------------------------------------------------------------------

_ADD_FIELDS = ("a_multiplier", "b_multiplier", "offset", "shift", "zero_point")


def _layernorm(low: Lowering) -> list[Call]:
    x, gain, offset = low.inputs
    rounded = low.attrs["mean"] == "rounded"
    types = {"x": ctype(x.dtype), "out": ctype(low.output.dtype), "out_short": short(low.output.dtype)}
    name = f"layernorm_{short(x.dtype)}_{short(low.output.dtype)}" + ("_rounded" if rounded else "")
    fields: dict[str, Value] = {
        "rows": row_count(x), "channels": x.shape[-1],
        "gain": low.constants.add(gain), "offset": low.constants.add(offset), **low.pick("eps", "shift", "zero_point"),
    }  # fmt: skip
    return [Call(Function(name, "layernorm", types | {"rounded": rounded}), low.step.inputs[:1], fields)]


def _table(low: Lowering) -> list[Call]:
    x, table = low.inputs
    types = {"x": ctype(x.dtype), "out": ctype(table.dtype), "x_min": f"{x.dtype.upper()}_MIN"}
    name = f"table_{short(x.dtype)}_{short(table.dtype)}"
    fields: dict[str, Value] = {"size": element_count(x), "table": low.constants.add(table)}
    return [Call(Function(name, "table", types), low.step.inputs[:1], fields)]


def _quantize_input(low: Lowering) -> list[Call]:
    x, table = low.inputs
    types = {"out": ctype(table.dtype)}
    fields: dict[str, Value] = {
        "batch": x.shape[0], "channels": x.shape[1], "size": math.prod(x.shape[2:]), "table": low.constants.add(table),
    }  # fmt: skip
    return [
        Call(
            Function(f"quantize_input_{short(table.dtype)}", "quantize_input", types),
            low.step.inputs[:1],
            fields,
        )
    ]


def _add(low: Lowering) -> list[Call]:
    a, b = low.inputs
    dtypes = (a.dtype, b.dtype, low.output.dtype)
    types = {"a": ctype(a.dtype), "b": ctype(b.dtype), "out": ctype(dtypes[2]), "out_short": short(dtypes[2])}
    inner = element_count(b)
    fields: dict[str, Value] = {
        "rows": element_count(a) // inner if inner else 0,
        "columns": inner,
        **low.pick(*_ADD_FIELDS),
    }
    return [Call(Function("add_" + "_".join(map(short, dtypes)), "add", types), low.step.inputs, fields)]


def _rescale(low: Lowering) -> list[Call]:
    x, multiplier, offset = low.inputs
    dtype = low.output.dtype
    per_channel = max(element_count(multiplier), element_count(offset)) > 1
    types = {"x": ctype(x.dtype), "out": ctype(dtype), "out_short": short(dtype), "per_channel": per_channel}
    name = f"rescale_{short(x.dtype)}_{short(dtype)}" + ("_channels" if per_channel else "")
    shape: dict[str, Value] = (
        {"rows": row_count(x), "channels": x.shape[-1]} if per_channel else {"size": element_count(x)}
    )
    factors = {
        key: _per_channel(low, tensor, per_channel)
        for key, tensor in zip(_FACTORS, low.inputs[1:], strict=True)
    }
    return [
        Call(
            Function(name, "rescale", types),
            low.step.inputs[:1],
            shape | factors | low.pick("shift", "zero_point"),
        )
    ]


_FACTORS = ("multiplier", "offset")


def _per_channel(low: Lowering, tensor: Tensor, per_channel: bool) -> Value:
    """A factor of `rescale`: one number, or an array with one for every channel."""
    assert tensor.data is not None
    if not per_channel:
        return int(tensor.data.reshape(-1)[0])
    channels = low.output.shape[-1:]
    return low.constants.add_array(
        tensor.name, np.broadcast_to(tensor.data, channels), tensor.dtype, channels
    )


def _mean(low: Lowering) -> list[Call]:
    x = low.inputs[0]
    dtype = low.output.dtype
    types = {"x": ctype(x.dtype), "out": ctype(dtype), "out_short": short(dtype)}
    fields = {**_around(x, int(low.attrs["axis"])), **low.pick("multiplier", "offset", "shift", "zero_point")}
    return [Call(Function(f"mean_{short(x.dtype)}_{short(dtype)}", "mean", types), low.step.inputs, fields)]


def _around(x: Tensor, axis: int) -> dict[str, int]:
    """The shape of `x` seen from one axis: [outer, axis, inner]."""
    axis %= len(x.shape)
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    return {"outer": outer, "axis": x.shape[axis], "inner": inner}


def _argmax(low: Lowering) -> list[Call]:
    x = low.inputs[0]
    types = {"x": ctype(x.dtype)}
    fields: dict[str, Value] = {**_around(x, int(low.attrs["axis"]))}
    return [Call(Function(f"argmax_{short(x.dtype)}", "argmax", types), low.step.inputs, fields)]


def _topk(low: Lowering) -> list[Call]:
    x = low.inputs[0]
    types = {"x": ctype(x.dtype)}
    fields: dict[str, Value] = {"rows": row_count(x), "columns": x.shape[-1], **low.pick("k")}
    return [Call(Function(f"topk_{short(x.dtype)}", "topk", types), low.step.inputs, fields)]


# --- data movement -----------------------------------------------------------------------------------------------


def _strides(shape: Sequence[int]) -> list[int]:
    """Element strides of a dense tensor."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _reshape(low: Lowering) -> list[Call]:
    return _strided(low, [element_count(low.output)], [1])


def _transpose(low: Lowering) -> list[Call]:
    strides = _strides(low.inputs[0].shape)
    return _strided(low, low.output.shape, [strides[axis] for axis in low.attrs["axes"]])


def _slice(low: Lowering) -> list[Call]:
    shape = low.inputs[0].shape
    bounds = zip(low.attrs["begin"], low.attrs["end"], low.attrs["strides"], shape, strict=True)
    taken = [range(size)[int(begin) : int(end) : int(stride)] for begin, end, stride, size in bounds]
    strides = [dense * part.step for dense, part in zip(_strides(shape), taken, strict=True)]
    start = sum(dense * part.start for dense, part in zip(_strides(shape), taken, strict=True))
    return _strided(low, [len(part) for part in taken], strides, start)


def _broadcast(low: Lowering) -> list[Call]:
    shape = low.inputs[0].shape
    padded = (1,) * (len(low.output.shape) - len(shape)) + shape
    dense = _strides(padded)
    strides = [0 if size == 1 else stride for size, stride in zip(padded, dense, strict=True)]
    return _strided(low, low.output.shape, strides)


def _strided(low: Lowering, shape: Sequence[int], strides: Sequence[int], start: int = 0) -> list[Call]:
    sizes, steps = _merge_axes(shape, strides)
    dtype = low.output.dtype
    types = {"element": ctype(dtype), "axes": range(len(sizes))}
    fields: dict[str, Value] = {"shape": sizes, "stride": steps}
    if start:
        fields["start"] = start
    return [Call(Function(f"copy_{len(sizes)}d_{short(dtype)}", "copy", types), low.step.inputs[:1], fields)]


def _merge_axes(shape: Sequence[int], strides: Sequence[int]) -> tuple[list[int], list[int]]:
    """The same elements in the same order with as few axes as possible, at least one."""
    merged: list[tuple[int, int]] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    sizes, steps = zip(*merged or [(1, 1)], strict=True)
    return list(sizes), list(steps)


def _concat(low: Lowering) -> list[Call]:
    around = _around(low.output, int(low.attrs["axis"]))
    item = np.dtype(low.output.dtype).itemsize
    inner, axis = around["inner"] * item, int(low.attrs["axis"]) % len(low.output.shape)
    result, begin = [], 0
    for tensor in low.inputs:
        size = tensor.shape[axis] * inner
        fields: dict[str, Value] = {
            "blocks": around["outer"], "bytes": size, "stride": low.output.shape[axis] * inner, "begin": begin,
        }  # fmt: skip
        result.append(Call(Function("copy_blocks", "copy_blocks"), (tensor.name,), fields))
        begin += size
    return result


def _gather(low: Lowering) -> list[Call]:
    x = low.inputs[0]
    around = _around(x, int(low.attrs["axis"]))
    size = around["axis"]
    indices = np.asarray(low.attrs["indices"], np.int64)
    positive = np.where(indices < 0, indices + size, indices).reshape(-1)
    fields: dict[str, Value] = {
        "blocks": around["outer"],
        "axis": size,
        "bytes": around["inner"] * np.dtype(x.dtype).itemsize,
        "count": positive.size,
        "indices": low.constants.add_array(f"{low.step.name}_indices", positive, "int32", positive.shape),
    }
    return [Call(Function("gather", "gather"), low.step.inputs[:1], fields)]


LOWER: dict[str, Callable[[Lowering], list[Call]]] = {
    "quantize_input": _quantize_input,
    "linear": _linear,
    "patch_embed": _patch_embed,
    "matmul": _matmul,
    "attention": _attention,
    "softmax": _softmax,
    "moe": moe,
    "layernorm": _layernorm,
    "table": _table,
    "add": _add,
    "rescale": _rescale,
    "mean": _mean,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "concat": _concat,
    "gather": _gather,
    "broadcast": _broadcast,
    "argmax": _argmax,
    "topk": _topk,
}
