"""The host drivers of one accelerator: configuration in, {path: text} out."""

from __future__ import annotations

from typing import Any

from intaglio.accelerator import descriptors, registers
from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.templates import banner, environment


def emit(config: AcceleratorConfig) -> dict[str, str]:
    """The Python driver, the C++ driver and its example, all under `host/`."""
    values = _values(config)
    jinja = environment()
    names = [name for name in jinja.list_templates(extensions=["j2"]) if name.startswith("host/")]
    return {name.removesuffix(".j2"): jinja.get_template(name).render(values) for name in names}


def _values(config: AcceleratorConfig) -> dict[str, Any]:
    return {
        "banner": banner(config),
        "config_hash": config.hash,
        "clock_mhz": config.clock_mhz,
        "register_magic": registers.MAGIC,
        "registers": [(name, offset, text) for name, (offset, _, text) in registers.REGISTERS.items()],
        "register_bytes": registers.COUNTER_BASE + 4 * len(registers.COUNTERS),
        "errors": list(registers.ERRORS.items()),
        "counters": registers.COUNTERS,
        "counter_base": registers.COUNTER_BASE,
        "program_magic": descriptors.MAGIC.decode("ascii"),
        "program_version": descriptors.FORMAT_VERSION,
        "header_format": descriptors.HEADER.format,
        "header_bytes": descriptors.HEADER.size,
        "descriptor_bytes": descriptors.BYTES,
    }
