"""Proof on machine code: lists the floating-point instructions in a compiled model's functions."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from intaglio.errors import ToolError


@dataclass(frozen=True)
class FloatInstruction:
    """One floating-point instruction, or call of a floating-point library function.

    `address` is the instruction's, in the file; `text` is objdump's, operands included.
    """

    function: str
    address: int
    text: str

    def __str__(self) -> str:
        return f"{self.function} at {self.address:#x}: {self.text}"


# What the toolchain links into every shared library; none of it runs between input and output.
_START_UP = frozenset(
    [
        "_init",
        "_fini",
        "_start",
        "call_weak_fn",
        "deregister_tm_clones",
        "register_tm_clones",
        "__do_global_dtors_aux",
        "frame_dummy",
    ]
)

# SSE and AVX arithmetic, comparison and conversion of scalar and packed floats. Moves, logic (xorps), shuffles and
# blends only carry bits: compilers use them for integers too.
_SSE = r"""
    v?(add|sub|mul|div|sqrt|min|max|r(cp|sqrt)(14|28)?|round|rndscale|cmp\w*|h(add|sub)|addsub|dp|range|reduce
      |get(exp|mant)|scalef|fixupimm|exp2|fpclass|fn?m(add|sub|addsub|subadd)(132|213|231)?)([sp][sdh]|n?e?pbf16)
    |vfc?m(add|ul)c[sp]h
    |vdpbf16ps
    |v?u?comi\w*s[sdh]
    |v?cvt\w+"""
# Every x87 instruction computes in its registers, even a load converts; the exceptions only save or wait.
_X87 = r"f(?!emms|xsave|xrstor|nop|wait)\w+"
# aarch64: scalar, vector and SVE floats and conversions; fmov only carries bits, bfi and its like are bit fields.
_AARCH64 = r"f(?!mov$)\w+|[su]cvtf|bf(dot|mmla|mlal[bt]|cvt\w*)"

_RULES = {
    "x86-64": re.compile(f"{_SSE}|{_X87}", re.VERBOSE),
    "i386": re.compile(f"{_SSE}|{_X87}", re.VERBOSE),
    "aarch64": re.compile(_AARCH64),
}

# Functions of libm and of compiler run-times that compute with floats.
_FLOAT_CALL = re.compile(
    r"""(
        (a?(sin|cos|tan)h?|atan2|exp(2|10|m1)?|log(2|10|1p|b)?|pow|sqrt|cbrt|hypot|erfc?|[lt]gamma|gamma|ceil|floor|trunc
          |l?l?round|l?l?rint|nearbyint|roundeven|fabs|fmod|remainder|remquo|fdim|fmax|fmin|fma|frexp|ldexp|modf
          |scalbl?n|ilogb|nextafter|nexttoward|copysign|sincos|atof|strto[df]|strtold|nan)[fl]?
        |__\w+_finite
        |__(add|sub|mul|div|neg|eq|ne|lt|le|gt|ge|unord|cmp|pow|powi)([sdxth]|t)f[23i]?\w*
        |__(float|floatun)\w*[sdt]i[sdxth]f
        |__fix(uns)?[sdxth]f[sdt]i
        |__(extend|trunc)[sdxthb]f[sdxth]f2
        |__aeabi_[fd]\w+|__gnu_[fh]2\w+
        |_ZGV\w+
    )""",
    re.VERBOSE,
)

_ARCHITECTURE = re.compile(r"file format \S*?-(x86-64|i386|\w*aarch64)")
_FUNCTION = re.compile(r"[0-9a-f]+ <(.+)>:")
_INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(\S.*)")
_PREFIX = re.compile(r"(?:(?:lock|repn?z?|notrack|bnd|data16|[c-gs]s|\{\w+\}) )*")
# Direct, through the procedure linkage table, or through the global offset table (`# 3fc8 <exp@GLIBC_2.29>`).
_CALL = re.compile(r"(?:call|jmp|bl|b)[lq]? .*<([^>@+]+)(?:@[^>]*)?>")


def float_instructions(library: Path | str, objdump: str = "objdump") -> list[FloatInstruction]:
    """Every floating-point instruction in the code of `library`, a shared library or object file.

    All functions are searched but the C run-time's start-up ones. Calls of floating-point library functions (exp,
    sqrtf, a soft-float routine) count too. `objdump`: the tool that knows the library's architecture (x86 or
    aarch64). Raises ToolError if it is missing or cannot read the file.
    """
    if shutil.which(objdump) is None:
        raise ToolError(f"{objdump} is needed to search machine code, but is not on PATH; install binutils.")
    command = [objdump, "--disassemble", "--no-show-raw-insn", "--wide", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"{objdump} cannot disassemble {library}: {done.stderr.strip()}")
    return search(done.stdout, str(library))


def search(listing: str, name: str) -> list[FloatInstruction]:
    """The floating-point instructions in objdump's `listing` of the file `name`."""
    architecture = _ARCHITECTURE.search(listing)
    rule = _RULES.get(architecture[1].removeprefix("little")) if architecture else None
    if rule is None:
        raise ToolError(f"{name} holds no x86 or aarch64 code that could be searched for floating point.")
    return [
        FloatInstruction(function, address, text)
        for function, address, text in _instructions(listing)
        if not _is_start_up(function) and _is_float(text, rule)
    ]


def _instructions(listing: str) -> Iterator[tuple[str, int, str]]:
    """(function, address, text) of every instruction."""
    function = ""
    for line in listing.splitlines():
        if match := _FUNCTION.fullmatch(line):
            function = match[1]
        elif match := _INSTRUCTION.fullmatch(line):
            yield function, int(match[1], 16), " ".join(match[2].split())


def _is_start_up(function: str) -> bool:
    # A stub of the procedure linkage table only jumps; the call of it counts.
    return function in _START_UP or function.endswith("@plt")


def _is_float(text: str, rule: re.Pattern[str]) -> bool:
    if call := _CALL.fullmatch(text.removeprefix("bnd ").removeprefix("notrack ")):
        return _FLOAT_CALL.fullmatch(call[1]) is not None
    prefix = _PREFIX.match(text)
    start = prefix.end() if prefix else 0
    return rule.fullmatch(text[start:].split(" ")[0]) is not None
