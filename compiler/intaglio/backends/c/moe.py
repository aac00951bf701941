"""From a mixture of experts to the call of a C function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from intaglio.backends.c.call import Call, Function, Lowering, Value, row_count
from intaglio.backends.c.names import ctype, short
from intaglio.ops.moe import E_BITS, Operands
from intaglio.program import Tensor


def moe(low: Lowering) -> list[Call]:
    """The call of one mixture of experts."""
    given = Operands.of(low.inputs)
    tokens, (experts, hidden, inputs) = row_count(given.x), given.first[0].shape
    k, outputs = int(low.attrs["k"]), low.output.shape[-1]
    types = _types(low, given)
    fields: dict[str, Value] = {
        "tokens": tokens, "experts": experts, "k": k, "inputs": inputs, "hidden": hidden, "outputs": outputs,
        "route_table": low.constants.add(given.route_table), **_expert_fields(low, given.first, 1),
        **low.pick("hidden_zero"),
    }  # fmt: skip
    if given.tables is not None:
        fields["table"] = low.constants.add(given.tables)
    fields |= {**_expert_fields(low, given.second, 2), **low.pick("y_zero")}
    fields["numerator"] = int(low.attrs["multiplier"]) << (E_BITS - 1)
    fields |= {"shift": int(low.attrs["shift"]) + E_BITS - 1, **low.pick("zero_point")}
    scratch = 4 * (3 * tokens * k + experts + tokens + tokens * outputs) + 2 * (inputs + hidden)
    return [Call(Function(_name(low, types), "moe", types), low.step.inputs[:2], fields, scratch)]


def _types(low: Lowering, given: Operands) -> dict[str, Any]:
    types: dict[str, Any] = {
        "x": ctype(given.x.dtype), "logits": ctype(given.logits.dtype), "normalize": bool(low.attrs["normalize"]),
        "out": ctype(low.output.dtype), "out_short": short(low.output.dtype), "table": "",
    }  # fmt: skip
    for index, constants in ((1, given.first), (2, given.second)):
        acc, weight = low.attrs[f"acc{index}_dtype"], constants[0].dtype
        types |= {
            f"weight{index}": ctype(weight), f"acc{index}": ctype(acc),
            f"dot{index}": f"dot_i16x{short(weight)}{'_acc64' if acc == 'int64' else ''}",
        }  # fmt: skip
    if given.tables is not None:
        types["table"] = "own" if given.tables.shape[0] > 1 else "shared"
    return types


def _name(low: Lowering, types: Mapping[str, Any]) -> str:
    """Every type that tells one function from another."""
    given = Operands.of(low.inputs)
    name = f"moe_{short(given.x.dtype)}_{short(given.logits.dtype)}_{types['out_short']}"
    for index, constants in ((1, given.first), (2, given.second)):
        acc = "_acc64" if types[f"acc{index}"] == "int64_t" else ""
        name += f"_{short(constants[0].dtype)}{acc}"
    name += f"_{types['table']}_table" if types["table"] else ""
    return name if types["normalize"] else f"{name}_raw"


def _expert_fields(low: Lowering, constants: Sequence[Tensor], index: int) -> dict[str, Value]:
    weight, bias, multiplier, shift = constants
    return {
        f"weight{index}": low.constants.add(weight),
        f"bias{index}": low.constants.add(bias, low.attrs[f"acc{index}_dtype"]),
        f"multiplier{index}": low.constants.add(multiplier),
        f"shift{index}": low.constants.add(shift, "uint8"),
    }
