"""C spellings: identifiers, types, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TYPES = {
    "int8": "i8", "uint8": "u8", "int16": "i16", "uint16": "u16",
    "int32": "i32", "uint32": "u32", "int64": "i64", "uint64": "u64",
}  # fmt: skip

# Keywords, and what the generated functions call their own.
_RESERVED = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|register"
    "|restrict|return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while|asm|typeof"
    "|arena|input|output|task|workspace|scratch|mem(cpy|set|move|cmp)|main|size_t"
)

_MAX_LENGTH = 56


def short(dtype: str) -> str:
    """`int8` -> `i8`: the suffix of a function's name."""
    return _TYPES[dtype]


def ctype(dtype: str) -> str:
    """`int8` -> `int8_t`."""
    if dtype not in _TYPES:
        raise ValueError(f"a tensor must be of an integer type, not {dtype!r}")
    return f"{dtype}_t"


def number(value: int) -> str:
    """A C constant of type int or wider. The most negative int64 has no literal of its own."""
    return f"(-{2**63 - 1} - 1)" if value == -(2**63) else str(value)


class Names:
    """Unique C identifiers for names of any spelling."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken = set(reserved)
        self._given: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._given:
            self._given[name] = self._fresh(identifier(name))
        return self._given[name]

    def _fresh(self, stem: str) -> str:
        candidate, count = stem, 1
        while candidate in self._taken or _RESERVED.fullmatch(candidate):
            count += 1
            candidate = f"{stem}_{count}"
        self._taken.add(candidate)
        return candidate


def identifier(name: str) -> str:
    """A C identifier that resembles `name`."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[-_MAX_LENGTH:].strip("_")
    # Standard headers reserve names such as int8_t, INT8_MAX and everything that begins with an underscore.
    clashes = not words or words[0].isdigit() or words.endswith("_t") or words.isupper()
    return f"t_{words}" if clashes else words
