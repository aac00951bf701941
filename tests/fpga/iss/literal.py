"""The accelerator in scalar Python, byte by byte from docs/accelerator.md: slow, and obvious."""

from __future__ import annotations

import math
from collections.abc import Iterator

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor, ProgramFile


def clamp(value: int, wide: int) -> int:
    limit = 1 << (15 if wide else 7)
    return max(-limit, min(limit - 1, value))


def round_shift(value: int, shift: int) -> int:
    return (value + (1 << (shift - 1))) >> shift


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


class Literal:
    """Executes each step as soon as its waits are met, units in turn."""

    def __init__(
        self, config: AcceleratorConfig, program: ProgramFile, weights: bytes, image: bytes, task: int = 0
    ) -> None:
        self.c, self.program, self.external, self.image, self.task = config, program, weights, image, task
        self.banks = (
            bytearray(config.a_words * config.word_bytes),
            bytearray(config.x_words * config.word_bytes),
        )
        self.weights = bytearray(config.weight_entries * config.entry_bytes)
        self.params: dict[int, tuple[int, int, int]] = {}
        self.norm: dict[int, tuple[int, int]] = {}
        self.tables: dict[tuple[int, int], list[int]] = {}
        self.queues: list[list[tuple[int, int]]] = []
        self.gates: list[list[int]] = []
        self.totals: list[int] = []
        self.output = bytearray(program.output_bytes)

    def run(self) -> bytes:
        progress = dict.fromkeys(UNITS, 0)
        steps = {unit: self._steps(unit) for unit in UNITS}
        waiting = {unit: next(steps[unit], None) for unit in UNITS}
        while any(waiting.values()):
            moved = False
            for unit in UNITS:
                step = waiting[unit]
                if step is None:
                    continue
                d, i, at = step
                if all(progress[u] >= base + by * i for u, (base, by) in d.waits.items()):
                    getattr(self, d.kind.lower())(d, at)
                    progress[unit] += 1
                    waiting[unit] = next(steps[unit], None)
                    moved = True
            assert moved, "deadlock"
        return bytes(self.output[: self.program.result_bytes])

    def _steps(self, unit: str) -> Iterator[tuple[Descriptor, int, int]]:
        """Descriptor, i of its waits, number of the step."""
        for d in self.program.descriptors:
            if BY_NAME[d.kind].unit != unit:
                continue
            tiles = ceil_div(d["rows"], self.c.rows)
            if d["queue"]:
                yield d, 0, 0
            elif d.kind == "ATTENTION":
                yield from ((d, step // tiles, step) for step in range(tiles * d["heads"]))
            elif d.kind in ("GEMM", "COMBINE", "LAYERNORM"):
                yield from ((d, step, step) for step in range(tiles))
            elif d.kind == "LOAD_IMAGE":
                yield from ((d, 0, step) for step in range(ceil_div(d["grid_h"] * d["grid_w"], self.c.rows)))
            else:
                yield d, 0, 0

    # Scratchpads.

    def at(self, addr: int, stride: int, token: int, byte: int) -> int:
        word = addr + token // self.c.rows * stride + byte // self.c.depth
        return word * self.c.word_bytes + token % self.c.rows * self.c.depth + byte % self.c.depth

    def get(self, bank: int, addr: int, stride: int, token: int, channel: int, wide: int = 0) -> int:
        if not wide:
            return signed(self.banks[bank][self.at(addr, stride, token, channel)], 8)
        low, high = (self.banks[bank][self.at(addr, stride, token, 2 * channel + i)] for i in range(2))
        return signed(low | high << 8, 16)

    def put(
        self, bank: int, addr: int, stride: int, token: int, channel: int, value: int, wide: int = 0
    ) -> None:
        assert value == clamp(value, wide)
        for i in range(1 + wide):
            self.banks[bank][self.at(addr, stride, token, (1 + wide) * channel + i)] = value >> 8 * i & 255

    def weight(self, entry: int, column: int, byte: int) -> int:
        return signed(self.weights[self.weight_at(entry, column, byte)], 8)

    def weight_at(self, entry: int, column: int, byte: int) -> int:
        return entry * self.c.entry_bytes + column * self.c.depth + byte

    def tile_tokens(self, rows: int, tile: int) -> range:
        return range(tile * self.c.rows, min((tile + 1) * self.c.rows, rows))

    def word(self, offset: int, size: int) -> int:
        return int.from_bytes(self.external[offset : offset + size], "little")

    def chosen(self, d: Descriptor) -> bool:
        """Whether there is something to do."""
        return d["queue"] == 0 or len(self.queues[d["queue"] - 1]) > 0

    def offset(self, d: Descriptor) -> int:
        return d["offset"] + (self.task * d["select"] * 64 if d["tasks"] else 0)

    # Descriptors.

    def load_weights(self, d: Descriptor, _: int) -> None:
        if not self.chosen(d):
            return
        source = self.offset(d)
        per_port = self.c.cols // self.c.weight_ports
        for port in range(self.c.weight_ports):
            for entry in range(d["entries"]):
                for column in range(port * per_port, (port + 1) * per_port):
                    for byte in range(self.c.depth):
                        self.weights[self.weight_at(d["entry"] + entry, column, byte)] = self.external[source]
                        source += 1

    def load_params(self, d: Descriptor, _: int) -> None:
        if not self.chosen(d):
            return
        for i in range(d["groups"] * self.c.group):
            raw = self.word(self.offset(d) + 8 * i, 8)
            value = signed(raw, 32), raw >> 32 & ((1 << 26) - 1), raw >> 58
            self.params[d["group"] * self.c.group + i] = value

    def load_norm(self, d: Descriptor, _: int) -> None:
        for i in range(d["channels"]):
            offset = d["offset"] + 16 * i
            self.norm[d["channel"] + i] = (
                signed(self.word(offset, 4), 32),
                signed(self.word(offset + 8, 8), 64),
            )

    def load_table(self, d: Descriptor, _: int) -> None:
        if not self.chosen(d):
            return
        entries = [self.word(d["offset"] + 2 * i, 2) for i in range(256)]
        if d["table"] != 3:
            entries = [signed(entry, 16) for entry in entries]
        self.tables[d["table"], d["slot"]] = entries

    def load_rows(self, d: Descriptor, _: int) -> None:
        size = self.c.word_bytes
        source = self.output if d["spilled"] else self.external
        for i in range(d["words"] * size):
            self.banks[d["bank"]][d["addr"] * size + i] = source[d["offset"] + i]

    def load_image(self, d: Descriptor, tile: int) -> None:
        ph, pw, gw = d["patch_h"], d["patch_w"], d["grid_w"]
        height, width = d["grid_h"] * ph, gw * pw
        for c in range(d["channels"]):
            for row in range(height):
                for col in range(width):
                    token = row // ph * gw + col // pw
                    if token // self.c.rows == tile:
                        value = self.tables[2, c][self.image[(c * height + row) * width + col]]
                        self.put(0, d["addr"], d["stride"], token, (c * ph + row % ph) * pw + col % pw, value)

    def store(self, d: Descriptor, _: int) -> None:
        for word in range(d["words"]):
            for row in range(self.c.rows) if d["all_rows"] else [d["row"]]:
                for i in range(self.c.depth):
                    place = self.at(d["addr"] + word, 0, row, i)
                    beat = word * self.c.rows + row if d["all_rows"] else word
                    self.output[d["offset"] + beat * self.c.depth + i] = self.banks[d["bank"]][place]

    def copy_kv(self, d: Descriptor, _: int) -> None:
        D, C = self.c.depth, self.c.cols
        for t in range(d["rows"]):
            for n in range(d["chunks"] * D):
                value = self.get(0, d["addr"], d["stride"], t, n) & 255
                if d["values"]:
                    entry = d["entry"] + n // C * ceil_div(d["rows"], D) + t // D
                    self.weights[self.weight_at(entry, n % C, t % D)] = value
                else:
                    entry = d["entry"] + t // C * d["chunks"] + n // D
                    self.weights[self.weight_at(entry, t % C, n % D)] = value

    def route(self, d: Descriptor, _: int) -> None:
        self.queues = [[] for _ in range(self.c.experts)]
        self.gates, self.totals = [], []
        for t in range(d["rows"]):
            logits = [self.get(0, d["addr"], d["stride"], t, e, d["wide"]) for e in range(d["experts"])]
            slots: list[int] = []
            while len(slots) < d["k"]:
                left = [e for e in range(d["experts"]) if e not in slots]
                slots.append(max(left, key=lambda e: (logits[e], -e)))
            distances = [max(logits) - logit for logit in logits]
            weights = [
                (self.tables[3, 0][i >> 8] * self.tables[3, 1][i & 255] + (1 << 16)) >> 17 for i in distances
            ]
            self.gates.append([weights[e] for e in slots])
            self.totals.append(sum(self.gates[t] if d["normalize"] else weights))
            for s, e in enumerate(slots):
                self.queues[e].append((t, s))

    def move_rows(self, d: Descriptor, _: int) -> None:
        for i, (t, s) in enumerate(self.queues[d["queue"] - 1]):
            for n in range(d["chunks"] * self.c.depth):
                if d["scatter"]:
                    value = self.get(0, d["s_addr"], d["s_stride"], i, n)
                    self.put(0, d["o_addr"] + s * d["slot_stride"], d["o_stride"], t, n, value)
                else:
                    self.put(
                        0, d["o_addr"], d["o_stride"], i, n, self.get(0, d["s_addr"], d["s_stride"], t, n)
                    )

    def gemm(self, d: Descriptor, tile: int) -> None:
        chosen = range(len(self.queues[d["queue"] - 1])) if d["queue"] else self.tile_tokens(d["rows"], tile)
        for t in chosen:
            x = [self.get(0, d["a_addr"], d["a_stride"], t, k) for k in range(d["k_steps"] * self.c.depth)]
            for n in range(d["groups"] * self.c.group):
                self.put(
                    d["o_bank"], d["o_addr"], d["o_stride"], t, n, self.gemm_element(d, x, t, n), d["o_wide"]
                )

    def gemm_element(self, d: Descriptor, x: list[int], t: int, n: int) -> int:
        D = self.c.depth
        first = d["entry"] + n // self.c.cols * d["k_steps"]
        acc = sum(value * self.weight(first + k // D, n % self.c.cols, k % D) for k, value in enumerate(x))
        bias, multiplier, shift = self.params[d["group"] * self.c.group + n]
        y = clamp(round_shift((acc + bias) * multiplier, shift) + d["zero"], d["wide"])
        if d["table"]:
            y = self.tables[0, d["slot"]][y + 128]
        return self.add(d, y, t, n)

    def add(self, d: Descriptor, y: int, t: int, n: int) -> int:
        if d["residual"]:
            b = self.get(1, d["r_addr"], d["r_stride"], t, n, d["r_wide"])
            y = round_shift(y * d["add_a"] + b * d["add_b"] + d["add_offset"], d["add_shift"]) + d["add_zero"]
            y = clamp(y, d["o_wide"])
        return y

    def combine(self, d: Descriptor, tile: int) -> None:
        for t in self.tile_tokens(d["rows"], tile):
            for n in range(d["groups"] * self.c.group):
                acc = 0
                for s in range(d["k"]):
                    y = self.get(0, d["a_addr"] + s * d["slot_stride"], d["a_stride"], t, n)
                    acc += self.gates[t][s] * (y - d["y_zero"])
                r = (d["multiplier"] << 14) // self.totals[t]
                assert r < 1 << 26
                y = clamp(round_shift(acc * r, d["shift"] + 14) + d["zero"], d["wide"])
                y = self.add(d, y, t, n)
                self.put(d["o_bank"], d["o_addr"], d["o_stride"], t, n, y, d["o_wide"])

    def attention(self, d: Descriptor, step: int) -> None:
        head, tile = divmod(step, ceil_div(d["rows"], self.c.rows))
        for t in self.tile_tokens(d["rows"], tile):
            for n, value in enumerate(self.attention_row(d, head, t)):
                self.put(0, d["o_addr"] + head * d["v_words"], d["o_stride"], t, n, value)

    def attention_row(self, d: Descriptor, head: int, t: int) -> list[int]:
        D, C, n = self.c.depth, self.c.cols, d["keys"]
        k_entry = d["entry"] + head % 2 * d["entry_step"]
        v_entry = k_entry + d["v_entry"]
        q = [
            self.get(0, d["q_addr"] + head * d["qk_steps"], d["q_stride"], t, i)
            for i in range(d["qk_steps"] * D)
        ]
        scores = []
        for i in range(n):
            dot = sum(
                (v - d["q_zero"])
                * (self.weight(k_entry + i // C * d["qk_steps"] + j // D, i % C, j % D) - d["k_zero"])
                for j, v in enumerate(q)
            )
            scores.append(
                clamp(round_shift(dot * d["score_multiplier"], d["score_shift"]) + d["score_zero"], 0)
            )
        e = [self.tables[1, d["slot"]][max(scores) - s] for s in scores]
        r = (d["multiplier"] << 14) // sum(e)
        out = []
        for m in range(d["v_words"] * D):
            entry = v_entry + m // C * ceil_div(n, D)
            acc = sum(e[i] * (self.weight(entry + i // D, m % C, i % D) - d["v_zero"]) for i in range(n))
            out.append(clamp(round_shift(acc * r, d["shift"] + 14) + d["zero"], 0))
        return out

    def layernorm(self, d: Descriptor, tile: int) -> None:
        C = d["channels"]
        for t in self.tile_tokens(d["rows"], tile):
            x = [self.get(1, d["x_addr"], d["x_stride"], t, n, d["x_wide"]) for n in range(C)]
            S = sum(x)
            V = C * sum(v * v for v in x) - S * S + d["eps"]
            j = next((j for j in range(31) if V and 1 << 60 <= V << 2 * j < 1 << 62), 0)
            r = (1 << 54) // math.isqrt(V << 2 * j) if V else 0
            for n in range(ceil_div(C, self.c.depth) * self.c.depth):
                out = 0
                if n < C:
                    gain, offset = self.norm[d["channel"] + n]
                    y = round_shift((C * x[n] - S) * r, 54 - j - 20)
                    out = clamp(round_shift(y * gain + offset, d["shift"]) + d["zero"], 0)
                self.put(0, d["o_addr"], d["o_stride"], t, n, out)
