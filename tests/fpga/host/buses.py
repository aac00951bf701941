"""The Python driver's bus over the model of the accelerator, and files in place of devices."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from tests.fpga.host.model import BASE, Model


def bus_of(driver: ModuleType, model: Model, interrupt: bool = False) -> Any:
    """The driver's bus interface over `model`."""

    class ModelBuffer(driver.Buffer):
        def __init__(self, address: int) -> None:
            self.address = address

        def write(self, data: bytes) -> None:
            model.store(self.address, data)

        def read(self, size: int) -> bytes:
            return model.load(self.address, size)

        def free(self) -> None:
            model.log.append(("free", self.address))

    class ModelBus(driver.Bus):
        def read(self, offset: int) -> int:
            return model.read(offset)

        def write(self, offset: int, value: int) -> None:
            model.write(offset, value)

        def allocate(self, size: int, alignment: int) -> Any:
            return ModelBuffer(model.allocate(size, alignment))

        def now(self) -> float:
            return model.time

        def wait(self, seconds: float) -> None:
            model.wait(seconds, self.interrupt)

    bus = ModelBus()
    bus.interrupt = interrupt
    return bus


def dev_mem(folder: Path, size: int) -> dict[str, Any]:
    """Files in place of devices, as keywords of DevMemBus."""
    facts = folder / "sys" / "udmabuf0"
    facts.mkdir(parents=True)
    (facts / "phys_addr").write_text(f"{BASE + 16:#x}\n")
    (facts / "size").write_text(f"{size}\n")
    (folder / "mem").write_bytes(bytes(8192))
    (folder / "udmabuf0").write_bytes(bytes(size))
    return {"registers": folder / "mem", "devices": folder, "sysfs": folder / "sys"}
