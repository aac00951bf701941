"""Lets mac_array_bench run: full speed, with pauses, and with operands at the ends of their ranges."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Timer


@cocotb.test()
async def versions_agree(dut: Any) -> None:
    cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
    for pause, extreme in ((0, 0), (0, 1), (128, 0), (240, 1)):
        dut.rst_i.value, dut.go_i.value, dut.pause_i.value, dut.extreme_i.value = 1, 0, pause, extreme
        await ClockCycles(dut.clk_i, 20)
        dut.rst_i.value, dut.go_i.value = 0, 1
        await ClockCycles(dut.clk_i, 1500)
        await Timer(1, "ns")
        assert int(dut.errors_o.value) == 0
        assert int(dut.tiles_o.value) > 15
