"""The small inline functions that a generated `ops.c` needs, found by their use."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Template

_DOT = re.compile(r"\bdot_(i8|i16|i32)x(i8|i16|i32)(_acc64)?\b")
_SHORT = {"i8": "int8", "i16": "int16", "i32": "int32"}


def helpers(bodies: str, template: Template) -> list[str]:
    """The definitions of the helpers which `bodies` call, each before its first use."""
    module: Any = template.module
    dots = [_dot(module, match) for match in sorted({found.group() for found in _DOT.finditer(bodies)})]
    simple = [getattr(module, name)() for name in _SIMPLE if f"{name}(" in bodies]
    requantize = [
        module.requantize(_SHORT[short], short) for short in _NARROW if f"requantize_{short}(" in bodies
    ]
    users = "\n".join([bodies, *requantize])
    saturate = [module.saturate(_SHORT[short], short) for short in _NARROW if f"saturate_{short}(" in users]
    needs_rounding = "round_shift(" in "\n".join([users, *simple])
    rounding = [module.round_shift()] if needs_rounding else []
    return [text.strip("\n") for text in [*rounding, *saturate, *requantize, *simple, *dots]]


_NARROW = ("i8", "i16")
_SIMPLE = ("exponential_i8", "exponential_i16", "gate_weight", "square_root")


def _dot(module: Any, name: str) -> str:
    match = _DOT.fullmatch(name)
    assert match is not None
    a, b, wide = match.groups()
    acc = "int64_t" if wide else "int32_t"
    # A product of two 16-bit numbers fits 32 bits whatever the accumulator.
    product = acc if "i32" in (a, b) else "int32_t"
    text: str = module.dot(name, f"{_SHORT[a]}_t", f"{_SHORT[b]}_t", acc, product)
    return text
