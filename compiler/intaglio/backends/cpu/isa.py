"""What a kernel may ask of the processor: the multiply-add of pairs, and LLVM's name for the machine."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from tvm import tirx
from tvm.target import Target, codegen

from intaglio.backends.cpu.ir import Expr, bits, const


@dataclass(frozen=True)
class Isa:
    """One processor as LLVM knows it. Kernels are exact on every one; only `avx2` is tuned."""

    mcpu: str
    triple: str
    avx2: bool

    @property
    def target(self) -> Target:
        return Target({"kind": "llvm", "mcpu": self.mcpu, "mtriple": self.triple})

    def pair_dot(self, a: Expr, b: Expr) -> Expr:
        """``a[2i] * b[2i] + a[2i+1] * b[2i+1]`` for int16 x 16: int32 x 8, modulo 2^32."""
        if self.avx2:
            return tirx.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", a, b)
        return low_half(a) * low_half(b) + high_half(a) * high_half(b)

    def shuffle_bytes(self, table: Expr, index: Expr) -> Expr:
        """``table[index]`` within each 16 bytes of int8 x 32; indices are 0..15. AVX2 only."""
        return tirx.call_llvm_pure_intrin("int8x32", "llvm.x86.avx2.pshuf.b", table, index)

    def blend_bytes(self, zero: Expr, one: Expr, mask: Expr) -> Expr:
        """`one` where the sign bit of the mask's byte is set, else `zero`. AVX2 only."""
        return tirx.call_llvm_pure_intrin("int8x32", "llvm.x86.avx2.pblendvb", zero, one, mask)


def low_half(pairs: Expr) -> Expr:
    """The even int16 elements of int16 x 16, as int32 x 8."""
    return (bits(pairs, "int32x8") << const(16, "int32")) >> const(16, "int32")


def high_half(pairs: Expr) -> Expr:
    """The odd int16 elements of int16 x 16, as int32 x 8."""
    return bits(pairs, "int32x8") >> const(16, "int32")


def select(cpu: str) -> Isa:
    """The processor called `cpu` by LLVM, or this machine for "host"."""
    triple = str(codegen.llvm_get_system_triple())
    name = str(codegen.llvm_get_system_cpu()) if cpu == "host" else cpu
    x86 = platform.machine() in {"x86_64", "AMD64"}
    avx2 = x86 and bool(
        codegen.target_has_features("avx2", Target({"kind": "llvm", "mcpu": name, "mtriple": triple}))
    )
    return Isa(name, triple, avx2)
