"""Descriptors of the unit mm: GEMM, ATTENTION and COMBINE."""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.descriptors import Descriptor
from intaglio.hw.iss.errors import FaultError
from intaglio.hw.iss.layout import as_channels, ceil_div, tensor_cells, tensor_writes, tokens, word_count
from intaglio.hw.iss.machine import Machine, row_tiles
from intaglio.hw.iss.memory import Cells, Data, Write
from intaglio.ops.arith import clamp, exact_matmul, peak, round_shift


def gemm(machine: Machine, index: int, d: Descriptor, low: int, high: int) -> list[Write]:
    """Row tiles low .. high - 1 of a matrix product, requantized; then table and residual. With `queue`: all rows."""
    config, memories = machine.config, machine.memories
    if machine.skips(d):
        return []
    at = np.arange(machine.rows(d)) if d["queue"] else tokens(config, d["rows"], low, high)
    cells = tensor_cells(config, d["a_addr"], d["a_stride"], at, d["k_steps"])
    x = as_channels(memories.bank_a.read(cells), 0)
    acc = _product(machine, index, d, x)
    y = _requantize(machine, d, acc)
    if d["table"]:
        y = _look_up(machine, d, y)
    return _result(machine, d, y, at)


def _result(machine: Machine, d: Descriptor, y: Data, at: Data) -> list[Write]:
    """Writes of `y` [tokens, channels], the residual added."""
    if d["residual"]:
        y = _add(machine, d, y, at)
    y = y.astype(np.int16 if d["o_wide"] else np.int8)
    return tensor_writes(
        machine.config, machine.memories.bank(d["o_bank"]), d["o_addr"], d["o_stride"], at, y
    )


def _product(machine: Machine, index: int, d: Descriptor, x: Data) -> Data:
    """``x [tokens, K]`` times the loaded weights: int64 [tokens, channels]."""
    matrix, sums = _weights(machine, index, d)
    return exact_matmul(x, matrix, peak(x) * sums)


def _weights(machine: Machine, index: int, d: Descriptor) -> tuple[Data, int]:
    """Weights float32 [K, channels], and the largest sum of magnitudes in a column.

    Cached while the entries come from the same LOAD_WEIGHTS as when they were cached.
    """
    memories, cells = machine.memories, _weight_cells(machine, d)
    used = ceil_div(d["groups"], machine.config.tile_groups) * d["k_steps"]
    source = memories.source[d["entry"] : d["entry"] + used]
    known = machine.cache.get((index, "matrix"))
    if known and np.array_equal(known[0], source):
        if memories.weights.observer:
            memories.weights.touch(cells)
        return known[1], known[2]
    data = memories.weights.read(cells)
    data = data.reshape(len(data), -1)
    sums = int(np.abs(data.astype(np.int64)).sum(axis=1).max())
    matrix = data.T.astype(np.float32)
    if source.all():
        machine.cache[(index, "matrix")] = (source.copy(), matrix, sums)
    return matrix, sums


def _weight_cells(machine: Machine, d: Descriptor) -> Cells:
    """Cells [channels, k_steps, granules]."""
    config = machine.config
    channel = np.arange(d["groups"] * config.group)[:, None, None]
    entries = d["entry"] + channel // config.cols * d["k_steps"] + np.arange(d["k_steps"])[:, None]
    return entries, channel % config.cols, np.arange(config.depth // config.rows)


def _requantize(machine: Machine, d: Descriptor, acc: Data) -> Data:
    groups = d["group"] + np.arange(d["groups"])
    bias, multiplier, shift = machine.memories.params.read((groups,)).reshape(-1, 3).T
    if not shift.all():
        raise FaultError(
            f"parameter group {d['group'] + int(np.argmin(shift)) // machine.config.group} has shift 0."
        )
    acc = acc + bias
    _check_int32(acc)
    dtype = "int16" if d["wide"] else "int8"
    return clamp(round_shift(acc * multiplier, shift) + d["zero"], dtype)


def _look_up(machine: Machine, d: Descriptor, y: Data) -> Data:
    entries = machine.memories.activation.read((np.array([d["slot"]]),))[0]
    y = entries[y.astype(np.int64) + 128]
    if not d["residual"] and not d["o_wide"] and (y.min() < -128 or y.max() > 127):
        raise FaultError(
            f"slot {d['slot']} of the activation table gives {int(y[np.abs(y) > 127][0])}, which is not int8."
        )
    return np.asarray(y)


def _add(machine: Machine, d: Descriptor, y: Data, at: Data) -> Data:
    config = machine.config
    words = word_count(config, y.shape[1], d["r_wide"])
    cells = tensor_cells(config, d["r_addr"], d["r_stride"], at, words)
    b = as_channels(machine.memories.bank_x.read(cells), d["r_wide"])[:, : y.shape[1]].astype(np.int64)
    # Below 2^42 + 2^61: check.py limits the multipliers and the offset.
    total = y.astype(np.int64) * d["add_a"] + b * d["add_b"] + d["add_offset"]
    return clamp(round_shift(total, d["add_shift"]) + d["add_zero"], "int16" if d["o_wide"] else "int8")


def combine(machine: Machine, _index: int, d: Descriptor, low: int, high: int) -> list[Write]:
    """Row tiles low .. high - 1 of the mean of expert results by gate weight; then residual."""
    config, memories = machine.config, machine.memories
    at = tokens(config, d["rows"], low, high)
    gates = memories.gates.read((at,))
    r = (np.int64(d["multiplier"]) << np.int64(14)) // memories.totals.read((at,))[:, None]
    channels = d["groups"] * config.group
    acc = np.zeros((len(at), channels), np.int64)
    for slot in range(d["k"]):
        addr = d["a_addr"] + slot * d["slot_stride"]
        cells = tensor_cells(config, addr, d["a_stride"], at, word_count(config, channels, 0))
        y = as_channels(memories.bank_a.read(cells), 0)[:, :channels].astype(np.int64)
        acc += gates[:, slot : slot + 1] * (y - d["y_zero"])
    y = clamp(round_shift(acc * r, d["shift"] + 14) + d["zero"], "int16" if d["wide"] else "int8")
    return _result(machine, d, y, at)


def attention(machine: Machine, _index: int, d: Descriptor, low: int, high: int) -> list[Write]:
    """Steps low .. high - 1: row tiles of queries of head 0, then of head 1, ..."""
    tiles = row_tiles(machine.config, d)
    writes = []
    for head in range(low // tiles, ceil_div(high, tiles)):
        first = head * tiles
        at = tokens(machine.config, d["rows"], max(low - first, 0), min(high - first, tiles))
        writes += _head(machine, d, head, at)
    return writes


def _head(machine: Machine, d: Descriptor, head: int, at: Data) -> list[Write]:
    config, bank = machine.config, machine.memories.bank_a
    q_addr = d["q_addr"] + head * d["qk_steps"]
    q = as_channels(bank.read(tensor_cells(config, q_addr, d["q_stride"], at, d["qk_steps"])), 0)
    entry = d["entry"] + head % 2 * d["entry_step"]
    e = _exponentials(machine, d, _scores(d, q, _keys(machine, d, entry)))
    v = _values(machine, d, entry + d["v_entry"])
    out = _weighted(d, e, v)
    return tensor_writes(config, bank, d["o_addr"] + head * d["v_words"], d["o_stride"], at, out)


def _keys(machine: Machine, d: Descriptor, entry: int) -> Data:
    """int8 [keys, qk_steps * D]."""
    config = machine.config
    key = np.arange(d["keys"])[:, None, None]
    entries = entry + key // config.cols * d["qk_steps"] + np.arange(d["qk_steps"])[:, None]
    cells = (entries, key % config.cols, np.arange(config.depth // config.rows))
    return machine.memories.weights.read(cells).reshape(d["keys"], -1)


def _values(machine: Machine, d: Descriptor, entry: int) -> Data:
    """int8 [v_words * D, keys]."""
    config = machine.config
    channel = np.arange(d["v_words"] * config.depth)[:, None]
    first = np.arange(0, d["keys"], config.rows)
    entries = entry + channel // config.cols * ceil_div(d["keys"], config.depth) + first // config.depth
    cells = (entries, channel % config.cols, first % config.depth // config.rows)
    return machine.memories.weights.read(cells).reshape(len(channel), -1)[:, : d["keys"]]


def _scores(d: Descriptor, q: Data, k: Data) -> Data:
    """int64 [queries, keys] within int8."""
    acc = exact_matmul(q, k.T, q.shape[1] << 14) + d["score_bias"]
    acc -= d["q_zero"] * k.astype(np.int64).sum(axis=1) + d["k_zero"] * q.astype(np.int64).sum(
        axis=1, keepdims=True
    )
    _check_int32(acc)
    scaled = round_shift(acc * d["score_multiplier"], d["score_shift"]) + d["score_zero"]
    return clamp(scaled, "int8").astype(np.int64)


def _exponentials(machine: Machine, d: Descriptor, scores: Data) -> Data:
    table = machine.memories.exponential.read((np.array([d["slot"]]),))[0]
    return np.asarray(table[scores.max(axis=1, keepdims=True) - scores])


def _weighted(d: Descriptor, e: Data, v: Data) -> Data:
    """int8 [queries, v_words * D]: the mean of `v [channels, keys]` with weights `e [queries, keys]`."""
    total = e.sum(axis=1, keepdims=True)
    if not total.all():
        raise FaultError("the exponentials of a row are all 0.")
    r = (np.int64(d["multiplier"]) << np.int64(14)) // total
    if r.max() >= 1 << 26:
        raise FaultError(
            f"a row's reciprocal {int(r.max())} exceeds 26 bits: its exponentials sum to less than 2^14."
        )
    acc = exact_matmul(e, v.T, int(total.max()) * 128)
    _check_int32(acc)
    acc -= d["v_zero"] * total
    _check_int32(acc)
    return clamp(round_shift(acc * r, d["shift"] + 14) + d["zero"], "int8")


def _check_int32(acc: Data) -> None:
    if acc.min() < -(1 << 31) or acc.max() >= 1 << 31:
        worst = int(acc.max() if acc.max() >= 1 << 31 else acc.min())
        raise FaultError(f"an accumulator reaches {worst}, which is not int32.")
