"""Floating point in machine code is found, and nothing else is taken for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from intaglio.backends import c, native
from intaglio.disassembly import float_instructions, search
from intaglio.errors import ToolError
from tests.c.programs import block, cases_program

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("objdump") is None, reason="gcc or objdump is not installed"
)

FLOAT_CODE = """
#include <math.h>
float scale(const float *x, float *y, int n) { for (int i = 0; i < n; i++) y[i] = x[i] * 3.0f + y[i]; return y[0]; }
double convert(long x) { return x; }
int less(double a, double b) { return a < b; }
double call(double x) { return exp(x) + 1; }
float tail(float x) { return sqrtf(sinf(x)); }
long double x87(long double x) { return x * x; }
void copy(const double *x, double *y) { y[0] = x[0]; y[1] = x[1]; }
int integer(const int *x, int n) { int sum = 0; for (int i = 0; i < n; i++) sum += x[i] * x[i]; return sum; }
"""


def shared_library(folder: Path, source: str, *flags: str) -> Path:
    (folder / "code.c").write_text(source)
    command = [
        "gcc",
        *flags,
        "-fPIC",
        "-shared",
        "-o",
        str(folder / "code.so"),
        str(folder / "code.c"),
        "-lm",
    ]
    subprocess.run(command, check=True)
    return folder / "code.so"


@pytest.mark.parametrize("flags", [("-O0",), ("-O3",), ("-O3", "-march=haswell"), ("-O2", "-fno-plt")])
def test_float_code_is_found(flags: tuple[str, ...], tmp_path: Path) -> None:
    found = float_instructions(shared_library(tmp_path, FLOAT_CODE, *flags))
    assert {item.function for item in found} == {"scale", "convert", "less", "call", "tail", "x87"}
    assert any("exp" in item.text for item in found if item.function == "call")
    assert all(item.address > 0 and item.text for item in found)


@pytest.mark.parametrize(
    "flags", [("-O0",), ("-O3",), ("-O3", "-march=haswell"), ("-O3", "-march=skylake-avx512")]
)
def test_the_c_target_is_integer_only(flags: tuple[str, ...], tmp_path: Path) -> None:
    files = c.emit(cases_program(3, "int32")) if flags == ("-O3",) else c.emit(block())
    for path, text in files.items():
        (tmp_path / path).write_text(str(text))
    library = native.compile_c(tmp_path, tmp_path / "model.so", (*flags, "-std=c11"))
    assert float_instructions(library) == []


LISTING = """
code.so:     file format elf64-littleaarch64

0000000000000600 <model>:
 600:\tfmov\ts0, w1
 604:\t{text}
"""


@pytest.mark.parametrize(
    "text",
    [
        "fadd\ts0, s0, s1",
        "scvtf\td0, x0",
        "fcvtzs\tw0, s0",
        "fmla\tv0.4s, v1.4s, v2.4s",
        "bl\t700 <expf@plt>",
    ],
)
def test_float_code_of_aarch64_is_found(text: str) -> None:
    found = search(LISTING.format(text=text), "code.so")
    assert [(item.function, item.address) for item in found] == [("model", 0x604)]
    assert str(found[0]) == f"model at 0x604: {text}".replace("\t", " ")


@pytest.mark.parametrize(
    "text", ["bfi\tw0, w1, #3, #4", "mla\tv0.4s, v1.4s, v2.4s", "bl\t700 <linear>", "sdot\tv0.4s"]
)
def test_integer_code_of_aarch64_is_not(text: str) -> None:
    assert search(LISTING.format(text=text), "code.so") == []


@pytest.mark.parametrize(
    "text",
    [
        "vmovaps %ymm0,(%rax)",
        "vxorps %xmm0,%xmm0,%xmm0",
        "vblendvpd %ymm1,%ymm2,%ymm3,%ymm4",
        "vpmaxsd %ymm0,%ymm1,%ymm2",
        "vpdpbusd %ymm0,%ymm1,%ymm2",
        "rep stos %al,(%rdi)",
        "vbroadcastss %xmm0,%ymm0",
        "vpermpd $1,%ymm0,%ymm1",
        "vinsertps $1,%xmm0,%xmm1,%xmm2",
        "vshufps $1,%ymm0,%ymm1,%ymm2",
        "cmpsb (%rdi),(%rsi)",
        "jmp 610 <expand+0x8>",
    ],
)
def test_moves_and_logic_on_vector_registers_are_not_arithmetic(text: str) -> None:
    assert search(f"file format elf64-x86-64\n0000 <model>:\n 600:\t{text}\n", "code.so") == []


@pytest.mark.parametrize(
    "text",
    [
        "vfmadd132ps %ymm0,%ymm1,%ymm2",
        "cvtsi2sd %rax,%xmm0",
        "ucomisd %xmm0,%xmm1",
        "vcmpltps %ymm0,%ymm1,%k1",
        "sqrtss %xmm0,%xmm0",
        "fldz",
        "fmul %st(1),%st",
        "vrndscaleps $1,%zmm0,%zmm1",
        "{evex} vaddps %zmm0,%zmm1,%zmm2",
        "jmp 610 <sqrtf@plt>",
        "call *0x2f(%rip) # 3fc8 <exp@GLIBC_2.29>",
        "call 900 <__divdf3>",
        "vcvttps2dq %ymm0,%ymm1",
    ],
)
def test_float_instructions_of_x86_are_found(text: str) -> None:
    assert len(search(f"file format elf64-x86-64\n0000 <model>:\n 600:\t{text}\n", "code.so")) == 1


def test_a_missing_objdump_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="objdump is needed to search machine code, but is not on PATH"):
        float_instructions(tmp_path / "code.so")


def test_what_is_no_library_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "code.so").write_text("no machine code")
    with pytest.raises(ToolError, match=r"objdump cannot disassemble .*code.so: "):
        float_instructions(tmp_path / "code.so")
    with pytest.raises(ToolError, match="holds no x86 or aarch64 code"):
        search("code.so: file format elf64-littleriscv\n", "code.so")
