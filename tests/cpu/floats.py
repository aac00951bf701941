"""Floating-point arithmetic in machine code; moves, shuffles and blends of vector registers are not arithmetic."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_ARITHMETIC = re.compile(
    r"^(v?(add|sub|mul|div|sqrt|min|max|rcp|rsqrt|round|cmp\w*|u?comi|fn?m\w*|h\w*|dp)(ss|sd|ps|pd)"
    r"|v?cvt\w*|v?addsub\w*|f(add|sub|mul|div|sqrt|ld|ild|st|ist|com|abs|chs|sin|cos|ptan|patan|scale|prem)\w*)$"
)


def floating_point(library: Path) -> list[str]:
    """Every floating-point instruction of an x86 object, as ``mnemonic operands``."""
    command = ["objdump", "-d", "--no-show-raw-insn", library]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = []
    for line in listing.splitlines():
        fields = line.split("\t")
        if len(fields) > 1 and fields[1].split() and _ARITHMETIC.match(fields[1].split()[0]):
            found.append(fields[1])
    return found
