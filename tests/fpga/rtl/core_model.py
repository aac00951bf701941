"""What the descriptors of unit MM mean (docs/accelerator.md), on arrays of integers: judge of the core's tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor


@dataclass
class Memories:
    """All that the compute core reads and writes.

    a, x: int8 [words, R, D]; weights: int8 [entries, C, D]; bias, multiplier, shift: [groups, G];
    activation: int16 [slots, 256]; exponential: [slots, 256]; lengths of queues: [experts]; gates: [tokens, 4];
    totals: [tokens].
    """

    config: AcceleratorConfig
    a: np.ndarray
    x: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    activation: np.ndarray
    exponential: np.ndarray
    lengths: np.ndarray
    gates: np.ndarray
    totals: np.ndarray
    row_tiles: int = field(default=0)

    def run(self, descriptor: Descriptor) -> None:
        """Execute one descriptor; counts the row tiles that MM's progress counter counts."""
        if descriptor.kind == "ATTENTION":
            self._attention(descriptor)
        else:
            self._tiles(descriptor)
        self.row_tiles += self.progress(descriptor)

    def progress(self, d: Descriptor) -> int:
        """By how much the descriptor makes the progress counter grow."""
        if d["queue"]:
            return 1
        return -(-d["rows"] // self.config.rows) * (d["heads"] if d.kind == "ATTENTION" else 1)

    def _tiles(self, d: Descriptor) -> None:
        rows = int(self.lengths[d["queue"] - 1]) if d["queue"] else d["rows"]
        for rt in range(-(-rows // self.config.rows)):
            y = self._gemm(d, rt) if d.kind == "GEMM" else self._combine(d, rt)
            self._result(d, rt, y, rows - rt * self.config.rows)

    def _gemm(self, d: Descriptor, rt: int) -> np.ndarray:
        """Requantized results [R, channels] of one row tile."""
        rows, cols, group = self.config.rows, self.config.cols, self.config.group
        word = d["a_addr"] + rt * d["a_stride"]
        act = self.a[word : word + d["k_steps"]].astype(np.int64).transpose(1, 0, 2).reshape(rows, -1)
        acc = self._columns(act, d["entry"], d["k_steps"], d["groups"] * group, cols)
        index = slice(d["group"], d["group"] + d["groups"])
        bias, multiplier, shift = (p[index].reshape(-1) for p in (self.bias, self.multiplier, self.shift))
        y = clamp(round_shift((acc + bias) * multiplier, shift) + d["zero"], d["wide"])
        if d["table"]:
            y = self.activation[d["slot"]][y + 128].astype(np.int64)
        return y

    def _combine(self, d: Descriptor, rt: int) -> np.ndarray:
        tokens = slice(rt * self.config.rows, (rt + 1) * self.config.rows)
        r = ((d["multiplier"] << 14) // self.totals[tokens])[:, None]
        acc = np.zeros((self.config.rows, d["groups"] * self.config.group), np.int64)
        for slot in range(d["k"]):
            addr = d["a_addr"] + slot * d["slot_stride"] + rt * d["a_stride"]
            acc += self.gates[tokens, slot, None] * (self._read(self.a, addr, d["groups"], 0) - d["y_zero"])
        return clamp(round_shift(acc * r, d["shift"] + 14) + d["zero"], d["wide"])

    def _result(self, d: Descriptor, rt: int, y: np.ndarray, rows: int) -> None:
        if d["residual"]:
            b = self._read(self.x, d["r_addr"] + rt * d["r_stride"], d["groups"], d["r_wide"])
            total = y * d["add_a"] + b * d["add_b"] + d["add_offset"]
            y = clamp(round_shift(total, d["add_shift"]) + d["add_zero"], d["o_wide"])
        bank = self.x if d["o_bank"] else self.a
        self._write(bank, d["o_addr"] + rt * d["o_stride"], y, d["o_wide"], rows)

    def _attention(self, d: Descriptor) -> None:
        rows, cols, depth, n = self.config.rows, self.config.cols, self.config.depth, d["keys"]
        for head in range(d["heads"]):
            entry = d["entry"] + head % 2 * d["entry_step"]
            for rt in range(-(-d["rows"] // rows)):
                word = d["q_addr"] + rt * d["q_stride"] + head * d["qk_steps"]
                q = self.a[word : word + d["qk_steps"]].astype(np.int64).transpose(1, 0, 2).reshape(rows, -1)
                s = (
                    self._columns(q, entry, d["qk_steps"], n, cols)
                    - d["k_zero"] * q.sum(1, keepdims=True)
                    + d["score_bias"]
                )
                ones = np.ones((1, q.shape[1]), np.int64)
                s -= d["q_zero"] * self._columns(ones, entry, d["qk_steps"], n, cols)
                s = clamp(round_shift(s * d["score_multiplier"], d["score_shift"]) + d["score_zero"], 0)
                e = self.exponential[d["slot"]][s.max(1, keepdims=True) - s].astype(np.int64)
                factor = (d["multiplier"] << 14) // e.sum(1, keepdims=True)
                steps = -(-n // depth)
                padded = np.zeros((rows, steps * depth), np.int64)
                padded[:, :n] = e
                acc = self._columns(padded, entry + d["v_entry"], steps, d["v_words"] * depth, cols)
                acc -= d["v_zero"] * e.sum(1, keepdims=True)
                out = clamp(round_shift(acc * factor, d["shift"] + 14) + d["zero"], 0)
                o = d["o_addr"] + rt * d["o_stride"] + head * d["v_words"]
                self._write(self.a, o, out, 0, d["rows"] - rt * rows)

    def _columns(self, act: np.ndarray, entry: int, k_steps: int, count: int, cols: int) -> np.ndarray:
        tiles = -(-count // cols)
        w = self.weights[entry : entry + tiles * k_steps].astype(np.int64)
        w = w.reshape(tiles, k_steps, cols, -1).transpose(0, 2, 1, 3).reshape(tiles * cols, -1)
        return act @ w[:count].T

    def _read(self, bank: np.ndarray, addr: int, groups: int, wide: int) -> np.ndarray:
        words = groups if wide else -(-groups // 2)
        rows = np.ascontiguousarray(bank[addr : addr + words].transpose(1, 0, 2)).reshape(
            self.config.rows, -1
        )
        return (rows.view("<i2") if wide else rows)[:, : groups * self.config.group].astype(np.int64)

    def _write(self, bank: np.ndarray, addr: int, values: np.ndarray, wide: int, rows: int) -> None:
        data = values.astype("<i2").view(np.int8) if wide else values.astype(np.int8)
        for r in range(min(rows, self.config.rows)):
            for i, word in enumerate(range(0, data.shape[1], self.config.depth)):
                part = data[r, word : word + self.config.depth]
                bank[addr + i, r, : len(part)] = part


def round_shift(value: np.ndarray, shift: int | np.ndarray) -> np.ndarray:
    return (value + (np.int64(1) << np.int64(np.asarray(shift) - 1))) >> shift


def clamp(value: np.ndarray, wide: int) -> np.ndarray:
    return np.clip(value, -32768, 32767) if wide else np.clip(value, -128, 127)
