"""Descriptors of the units dm and io, and COPY_KV: copies between external memory, scratchpads and buffers."""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.descriptors import Descriptor
from intaglio.hw.iss.errors import FaultError
from intaglio.hw.iss.layout import as_channels, ceil_div, tensor_cells, tensor_writes, tokens
from intaglio.hw.iss.machine import Machine
from intaglio.hw.iss.memory import Data, Write

ROUTER = 3
"""The router's number among tables."""


def load_weights(machine: Machine, index: int, d: Descriptor, _low: int, _high: int) -> list[Write]:
    """Whole entries; in external memory the columns of one weight port after those of another."""
    if machine.skips(d):
        return []
    config = machine.config
    ports, cols, depth = config.weight_ports, config.cols, config.depth

    def unpack() -> Data:
        raw = _external(machine, _offset(machine, d), d["entries"] * config.entry_bytes, "<i1")
        by_port = raw.reshape(ports, d["entries"], cols // ports, depth).swapaxes(0, 1)
        return np.ascontiguousarray(by_port.reshape(d["entries"], cols, depth // config.rows, config.rows))

    entries = d["entry"] + np.arange(d["entries"])[:, None, None]
    cells = (entries, np.arange(cols)[:, None], np.arange(depth // config.rows))
    block = machine.cached(index, _block(machine, d), unpack)
    return [Write(machine.memories.weights, cells, block, source=index + 1 + (_task(machine, d) << 32))]


def load_params(machine: Machine, index: int, d: Descriptor, _low: int, _high: int) -> list[Write]:
    """Groups of G channels: bias, multiplier, shift."""
    if machine.skips(d):
        return []
    group = machine.config.group

    def unpack() -> Data:
        raw = _external(machine, _offset(machine, d), d["groups"] * group * 8, "<u8")
        bias = (raw & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
        multiplier = raw >> np.uint64(32) & np.uint64((1 << 26) - 1)
        fields = [part.astype(np.int64) for part in (bias, multiplier, raw >> np.uint64(58))]
        return np.stack(fields, axis=-1).reshape(-1, group, 3)

    cells = (d["group"] + np.arange(d["groups"]),)
    return [Write(machine.memories.params, cells, machine.cached(index, _block(machine, d), unpack))]


def load_norm(machine: Machine, index: int, d: Descriptor, _low: int, _high: int) -> list[Write]:
    """Channels of gain (int32), 4 zero bytes, offset (int64)."""

    def unpack() -> Data:
        words = _external(machine, d["offset"], d["channels"] * 16, "<i4").reshape(-1, 4)
        offset = np.ascontiguousarray(words[:, 2:]).view("<i8")[:, 0]
        return np.stack([words[:, 0].astype(np.int64), offset.astype(np.int64)], axis=-1)

    cells = (d["channel"] + np.arange(d["channels"]),)
    return [Write(machine.memories.norm, cells, machine.cached(index, "block", unpack))]


def load_table(machine: Machine, index: int, d: Descriptor, _low: int, _high: int) -> list[Write]:
    """256 entries of 16 bits: signed (activation, pixel), at most 15 bits (exponential), unsigned (router)."""
    if machine.skips(d):
        return []

    def unpack() -> Data:
        router = d["table"] == ROUTER
        entries = _external(machine, d["offset"], 512, "<u2" if router else "<i2").astype(np.int64)
        if router and entries[0] != 65535:
            raise FaultError(f"entry 0 of a router table must be 65535, not {int(entries[0])}.")
        if d["table"] == 1 and entries.min() < 0:
            raise FaultError(f"entry {int(entries.argmin())} of the exponential table exceeds 15 bits.")
        if d["table"] == 2 and (entries.min() < -128 or entries.max() > 127):
            raise FaultError(f"entry {int(np.abs(entries).argmax())} of the pixel table is not int8.")
        return entries[None]

    values = machine.cached(index, "block", unpack)
    return [Write(machine.memories.table(d["table"]), (np.array([d["slot"]]),), values)]


def load_rows(machine: Machine, index: int, d: Descriptor, _low: int, _high: int) -> list[Write]:
    """Whole words, all R rows; of what was spilled, beats that nothing defined leave their rows undefined."""
    config = machine.config
    cells = (d["addr"] + np.arange(d["words"])[:, None], np.arange(config.rows))
    if d["spilled"]:
        first, shape = d["offset"] // config.depth, (d["words"], config.rows)
        data, valid = machine.memories.output.copy(
            (first + np.arange(d["words"] * config.rows).reshape(shape),)
        )
        return [Write(machine.memories.bank(d["bank"]), cells, data.view(np.int8), defined=valid)]

    def unpack() -> Data:
        raw = _external(machine, d["offset"], d["words"] * config.word_bytes, "<i1")
        return raw.reshape(d["words"], config.rows, config.depth)

    return [Write(machine.memories.bank(d["bank"]), cells, machine.cached(index, "block", unpack))]


def load_image(machine: Machine, _index: int, d: Descriptor, low: int, high: int) -> list[Write]:
    """Row tiles low .. high - 1 of patches, bytes through the pixel tables; depth is ordered (c, y, x)."""
    grid_h, grid_w, patch_h, patch_w = d["grid_h"], d["grid_w"], d["patch_h"], d["patch_w"]
    shape = (d["channels"], grid_h, patch_h, grid_w, patch_w)
    pixels = np.frombuffer(machine.image, np.uint8, int(np.prod(shape))).reshape(d["channels"], -1)
    table = machine.memories.pixel.read((np.arange(d["channels"]),))
    mapped = np.take_along_axis(table, pixels.astype(np.int64), axis=1).astype(np.int8).reshape(shape)
    patches = mapped.transpose(1, 3, 0, 2, 4).reshape(grid_h * grid_w, -1)
    at = tokens(machine.config, grid_h * grid_w, low, high)
    bank = machine.memories.bank_a
    return tensor_writes(machine.config, bank, d["addr"], d["stride"], at, patches[at])


def store(machine: Machine, _index: int, d: Descriptor, _low: int, _high: int) -> list[Write]:
    """One row of consecutive words to the result, or all rows, which may be undefined, to the spill area."""
    words, bank = d["addr"] + np.arange(d["words"]), machine.memories.bank(d["bank"])
    first, output = d["offset"] // machine.config.depth, machine.memories.output
    if not d["all_rows"]:
        data = bank.read((words, np.array([d["row"]])))
        return [Write(output, (first + np.arange(d["words"]),), data.view(np.uint8))]
    data, valid = bank.copy((words[:, None], np.arange(machine.config.rows)))
    at = first + np.arange(valid.size).reshape(valid.shape)
    return [Write(output, (at,), data.view(np.uint8), defined=valid)]


def copy_kv(machine: Machine, _index: int, d: Descriptor, _low: int, _high: int) -> list[Write]:
    """Keys or values of one head from bank A to the weight buffer."""
    return _copy_values(machine, d) if d["values"] else _copy_keys(machine, d)


def _copy_keys(machine: Machine, d: Descriptor) -> list[Write]:
    """Token t becomes column t % C of the entries of column tile t / C."""
    config = machine.config
    at = np.arange(d["rows"])
    data = machine.memories.bank_a.read(tensor_cells(config, d["addr"], d["stride"], at, d["chunks"]))
    granules = config.depth // config.rows
    entries = d["entry"] + (at // config.cols)[:, None] * d["chunks"] + np.arange(d["chunks"])
    cells = (entries[:, :, None], (at % config.cols)[:, None, None], np.arange(granules))
    return [Write(machine.memories.weights, cells, data.reshape(*data.shape[:2], granules, config.rows))]


def _copy_values(machine: Machine, d: Descriptor) -> list[Write]:
    """Channel n becomes column n % C, token t byte t % D; a row tile of tokens is one granule of R bytes."""
    config, bank = machine.config, machine.memories.bank_a
    bank.touch(tensor_cells(config, d["addr"], d["stride"], np.arange(d["rows"]), d["chunks"]))
    tiles = ceil_div(d["rows"], config.rows)
    # Rows beyond `rows` of the last row tile come along, whatever they are.
    at = np.arange(tiles * config.rows)
    data = as_channels(bank.data[tensor_cells(config, d["addr"], d["stride"], at, d["chunks"])], 0)
    channel = np.arange(d["chunks"] * config.depth)[:, None]
    first = np.arange(tiles) * config.rows
    entries = d["entry"] + channel // config.cols * ceil_div(d["rows"], config.depth) + first // config.depth
    cells = (entries, channel % config.cols, first % config.depth // config.rows)
    return [Write(machine.memories.weights, cells, data.T.reshape(-1, tiles, config.rows))]


def _task(machine: Machine, d: Descriptor) -> int:
    return machine.task if d["tasks"] else 0


def _offset(machine: Machine, d: Descriptor) -> int:
    return d["offset"] + _task(machine, d) * d["select"] * 64


def _block(machine: Machine, d: Descriptor) -> str:
    """Under which name what the descriptor loads is cached: once per task."""
    return f"block {_task(machine, d)}"


def _external(machine: Machine, offset: int, size: int, dtype: str) -> Data:
    return np.frombuffer(bytes(machine.weights[offset : offset + size]), dtype)
