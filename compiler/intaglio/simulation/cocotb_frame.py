"""The cocotb side of a whole-model run: start the accelerator, wait for its interrupt, read its counters.

Python wakes only when the host's transfers and the runs end; everything that happens per cycle is SystemVerilog.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, First, RisingEdge, Timer

from intaglio.accelerator.registers import COUNTER_BASE, COUNTERS, REGISTERS


class Host:
    """Register access through the test bench's AXI4-Lite host."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut

    async def _transfer(self, address: int, write: bool, value: int = 0) -> int:
        self.dut.host_addr.value = address
        self.dut.host_write.value = int(write)
        self.dut.host_wdata.value = value
        self.dut.host_req.value = 1
        await RisingEdge(self.dut.host_ack)
        result = int(self.dut.host_rdata.value)
        self.dut.host_req.value = 0
        await FallingEdge(self.dut.host_ack)
        return result

    async def write(self, name: str, value: int) -> None:
        await self._transfer(REGISTERS[name][0], True, value)

    async def read(self, name: str) -> int:
        return await self._transfer(REGISTERS[name][0], False)

    async def address(self, name: str, value: int) -> None:
        await self.write(f"{name}_LO", value & 0xFFFFFFFF)
        await self.write(f"{name}_HI", value >> 32)

    async def counters(self) -> dict[str, int]:
        pairs = [(name, COUNTER_BASE + 4 * i) for i, name in enumerate(COUNTERS)]
        return {name: await self._transfer(offset, False) for name, offset in pairs}


@cocotb.test()
async def frames(dut: Any) -> None:
    """Run every image of the job in $INTAGLIO_JOB and write what happened to its `report`."""
    job = json.loads(Path(os.environ["INTAGLIO_JOB"]).read_text())
    host = Host(dut)
    await RisingEdge(dut.ready)
    await host.address("PROGRAM", job["program"])
    await host.write("PROGRAM_COUNT", job["count"])
    await host.address("WEIGHTS", job["weights"])
    await host.write("WATCHDOG", job["watchdog"])
    await host.write("CONTROL", 4)
    runs = []
    for image, output in zip(job["inputs"], job["outputs"], strict=True):
        await host.address("INPUT", image)
        await host.address("OUTPUT", output)
        runs.append(await _run(dut, host, job))
        Path(job["progress"]).write_text(str(len(runs)))
        if runs[-1]["status"] & 4:
            break
    dut.dump_from.value = job["dump_from"]
    dut.dump_to.value = job["dump_to"]
    dut.dump.value = 1
    await RisingEdge(dut.dumped)
    Path(job["report"]).write_text(json.dumps({"runs": runs}))


async def _run(dut: Any, host: Host, job: dict[str, Any]) -> dict[str, Any]:
    begin = int(dut.cycle.value)
    await host.write("CONTROL", 5)
    await First(RisingEdge(dut.irq), Timer(job["limit_ns"], "ns"))
    status = await host.read("STATUS")
    counters = await host.counters()
    info = await host.read("ERROR_INFO")
    await host.write("INTERRUPT", 1)
    return {"begin": begin, "status": status, "info": info, "counters": counters}
