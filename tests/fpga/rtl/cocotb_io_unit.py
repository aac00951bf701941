"""io_unit against a model of what each descriptor moves, with engines and scratchpads that stall in all ways."""

from __future__ import annotations

import os
import random
from collections import deque
from typing import Any

import cocotb
import numpy as np
from bank import Bank, give, idle, lengths, progress, start
from cocotb.triggers import RisingEdge

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import Descriptor

CONFIG = PRESETS[os.environ["PRESET"]]
R, D, G = CONFIG.rows, CONFIG.depth, CONFIG.group
WORDS = 400
WEIGHTS, INPUT, OUTPUT = 0x12_3456_7000, 0x80_0000_0040, 0xFF_0000_0080
STALLS = {"none": (1.0, 1.0), "idle": (0.4, 1.0), "back_pressure": (1.0, 0.4), "both": (0.5, 0.5)}


class Bench:
    """The unit with its engines, buffers and banks, and what they should hold."""

    def __init__(self, dut: Any, rng: random.Random, stall: str) -> None:
        self.dut, self.rng = dut, rng
        self.flow, grant = STALLS[stall]
        self.a = Bank(dut, CONFIG, WORDS, rng, grant)
        self.x = Bank(dut, CONFIG, WORDS, rng, grant)
        self.expected_a, self.expected_x = self.a.data.copy(), self.x.data.copy()
        self.weights, self.spilled = rng.randbytes(1 << 16), rng.randbytes(1 << 15)
        self.lengths = [rng.choice([0, 3]) for _ in range(CONFIG.experts)]
        self.image = b""
        self.params: dict[tuple[int, int], int] = {}
        self.norm: dict[tuple[int, int], int] = {}
        self.tables: dict[tuple[int, int, int], int] = {}
        self.pixels = np.zeros((4, 256), np.int8)
        self.output: dict[int, bytes] = {}
        self.commands: deque[tuple[int, int]] = deque()
        self.progress = 0

    async def begin(self) -> list[Any]:
        """Reset, and what surrounds the unit; returns the tasks."""
        await start(self.dut)
        self.dut.weights_base_i.value, self.dut.input_base_i.value = WEIGHTS, INPUT
        self.dut.output_base_i.value = OUTPUT
        if CONFIG.experts:
            self.dut.lengths_i.value = lengths(self.lengths)
        coroutines = (
            self.a.writes_at("a_wr"), self.x.writes_at("x_wr"), self.a.reads(("a_rd",), "a_rd_data_i"),
            self.x.reads(("x_rd",), "x_rd_data_i"), self._reader(), self._writer(), self._buffers(),
        )  # fmt: skip
        return [cocotb.start_soon(coroutine) for coroutine in coroutines]

    def _memory(self, addr: int, size: int) -> bytes:
        places = ((OUTPUT, self.spilled), (INPUT, self.image), (WEIGHTS, self.weights))
        base, data = next(place for place in places if addr >= place[0])
        assert base <= addr <= base + len(data) - size, hex(addr)
        return data[addr - base : addr - base + size]

    async def _reader(self) -> None:
        """The read engine: at most two commands at a time, beats in order."""
        dut, beats = self.dut, deque[bytes]()
        ready = offered = False
        dut.rd_cmd_ready_i.value = dut.rd_valid_i.value = 0
        while True:
            await RisingEdge(dut.clk_i)
            if ready and int(dut.rd_cmd_valid_o.value):
                addr, count = int(dut.rd_cmd_addr_o.value), int(dut.rd_cmd_beats_o.value)
                data = self._memory(addr, count * D)
                beats.extend(data[i : i + D] for i in range(0, len(data), D))
            if offered and int(dut.rd_ready_o.value):
                beats.popleft()
                offered = False
            offered = bool(beats) and (offered or self.rng.random() < self.flow)
            ready = len(beats) < 64 and self.rng.random() < self.flow
            dut.rd_cmd_ready_i.value = ready
            dut.rd_valid_i.value = offered
            dut.rd_data_i.value = (
                int.from_bytes(beats[0], "little") if offered else self.rng.getrandbits(8 * D)
            )

    async def _writer(self) -> None:
        """The write engine: one command, its beats, and some time later the response."""
        dut = self.dut
        cmd_ready = ready = False
        at = left = delay = 0
        dut.wr_cmd_ready_i.value = dut.wr_ready_i.value = dut.wr_done_i.value = 0
        while True:
            await RisingEdge(dut.clk_i)
            dut.wr_done_i.value = 0
            if delay:
                delay -= 1
                dut.wr_done_i.value = int(delay == 0)
            if cmd_ready and int(dut.wr_cmd_valid_o.value):
                at, left = int(dut.wr_cmd_addr_o.value), int(dut.wr_cmd_beats_o.value)
            elif ready and int(dut.wr_valid_o.value):
                self.output[at] = int(dut.wr_data_o.value).to_bytes(D, "little")
                at, left = at + D, left - 1
                if not left:
                    delay = self.rng.randint(1, 20)
            cmd_ready = not left and not delay and self.rng.random() < self.flow
            ready = bool(left) and self.rng.random() < self.flow
            dut.wr_cmd_ready_i.value, dut.wr_ready_i.value = cmd_ready, ready

    async def _buffers(self) -> None:
        dut = self.dut
        while True:
            await RisingEdge(dut.clk_i)
            if int(dut.p_we_o.value):
                self._put(self.params, (int(dut.p_group_o.value), int(dut.p_beat_o.value)), dut.p_data_o)
            if int(dut.n_we_o.value):
                self._put(self.norm, (int(dut.n_channel_o.value), int(dut.n_half_o.value)), dut.n_data_o)
            if int(dut.t_we_o.value):
                key = (int(dut.t_table_o.value), int(dut.t_slot_o.value), int(dut.t_index_o.value))
                self._put(self.tables, key, dut.t_data_o)

    def _put(self, memory: dict[Any, int], key: Any, data: Any) -> None:
        assert key not in memory, f"{key} written twice"
        memory[key] = int(data.value)

    def _offset(self, size: int, memory: bytes | None = None) -> int:
        return 64 * self.rng.randrange((len(memory or self.weights) - size) // 64 + 1)

    def _queue(self) -> tuple[int, bool]:
        """A value of `queue`, and whether it makes a load do nothing."""
        queue = self.rng.randint(0, CONFIG.experts)
        return queue, queue > 0 and not self.lengths[queue - 1]

    async def copies(self, kind: str) -> None:
        """One descriptor of this kind, and what it must leave behind."""
        await getattr(self, f"_{kind}")()
        await idle(self.dut)
        assert int(self.dut.progress_o.value) == self.progress, kind
        assert np.array_equal(self.a.data, self.expected_a), kind
        assert np.array_equal(self.x.data, self.expected_x), kind

    async def _params(self) -> None:
        groups, group = self.rng.randint(1, 12), self.rng.randrange(100)
        offset = self._offset(groups * 4 * D)
        queue, skipped = self._queue()
        self.params.clear()
        fields = {"offset": offset, "group": group, "groups": groups, "queue": queue}
        await give(self.dut, Descriptor("LOAD_PARAMS", fields))
        await idle(self.dut)
        keys = [(group + i, beat) for i in range(groups) for beat in range(4)]
        assert self.params == ({} if skipped else self._beats(keys, offset))
        self.progress += 1

    async def _norm(self) -> None:
        channels, channel = self.rng.randint(1, 20), self.rng.randrange(100)
        offset = self._offset(channels * 16)
        self.norm.clear()
        await give(
            self.dut, Descriptor("LOAD_NORM", {"offset": offset, "channel": channel, "channels": channels})
        )
        await idle(self.dut)
        keys = [(channel + i, half) for i in range(channels) for half in range(16 // D)]
        assert self.norm == self._beats(keys, offset)
        self.progress += 1

    def _beats(self, keys: list[tuple[int, int]], offset: int) -> dict[tuple[int, int], int]:
        cut = [self.weights[offset + i * D : offset + (i + 1) * D] for i in range(len(keys))]
        return {key: int.from_bytes(beat, "little") for key, beat in zip(keys, cut, strict=True)}

    async def _table(self, table: int | None = None, slot: int | None = None) -> None:
        queue, skipped = self._queue() if table is None else (0, False)
        table = self.rng.randrange(4) if table is None else table
        slot = self.rng.randrange((*[CONFIG.table_slots] * 2, 4, 2)[table]) if slot is None else slot
        offset = self._offset(512)
        entries = np.frombuffer(self.weights[offset : offset + 512], "<u2")
        self.tables.clear()
        fields = {"offset": offset, "slot": slot, "table": table, "queue": queue}
        await give(self.dut, Descriptor("LOAD_TABLE", fields))
        await idle(self.dut)
        if skipped:
            assert not self.tables
        elif table == 2:
            self.pixels[slot] = entries.astype(np.uint8).view(np.int8)
            assert not self.tables
        else:
            assert self.tables == {(table, slot, i): int(entry) for i, entry in enumerate(entries)}
        self.progress += 1

    async def _rows(self) -> None:
        words, bank = self.rng.randint(1, 12), self.rng.randrange(2)
        addr, spilled = self.rng.randrange(WORDS - words), self.rng.randrange(2)
        memory = self.spilled if spilled else self.weights
        offset = self._offset(words * R * D, memory)
        data = np.frombuffer(memory[offset : offset + words * R * D], np.int8).reshape(words, R, D)
        (self.expected_x if bank else self.expected_a)[addr : addr + words] = data
        self.progress += 1
        fields = {"offset": offset, "addr": addr, "words": words, "bank": bank, "spilled": spilled}
        await give(self.dut, Descriptor("LOAD_ROWS", fields))

    async def _store(self) -> None:
        words, bank, row = self.rng.randint(1, 30), self.rng.randrange(2), self.rng.randrange(R)
        addr, offset = self.rng.randrange(WORDS - words), 64 * self.rng.randrange(1000)
        all_rows = self.rng.randrange(2)
        self.output.clear()
        self.progress += 1
        fields = {"offset": offset, "addr": addr, "words": words, "bank": bank, "all_rows": all_rows}
        await give(self.dut, Descriptor("STORE", fields | {"row": 0 if all_rows else row}))
        await idle(self.dut)
        source = (self.x.data if bank else self.a.data)[addr : addr + words]
        stored = source.reshape(-1, D) if all_rows else source[:, row]
        assert self.output == {OUTPUT + offset + i * D: beat.tobytes() for i, beat in enumerate(stored)}

    async def _picture(self) -> None:
        await self.picture()

    async def picture(self, fields: dict[str, int] | None = None) -> None:
        """LOAD_IMAGE; progress must never be ahead of the row tiles that are complete."""
        f = fields or self._geometry()
        channels, grid_h, grid_w = f["channels"], f["grid_h"], f["grid_w"]
        shape = (channels, grid_h, f["patch_h"], grid_w, f["patch_w"])
        self.image = self.rng.randbytes(int(np.prod(shape)))
        raw = np.frombuffer(self.image, np.uint8).reshape(shape)
        mapped = np.stack([self.pixels[c][raw[c]] for c in range(channels)])
        patches = mapped.transpose(1, 3, 0, 2, 4).reshape(grid_h * grid_w, -1)
        depth, tiles = patches.shape[1], -(-len(patches) // R)
        for token, patch in enumerate(patches):
            for q in range(-(-depth // D)):
                piece = patch[q * D : (q + 1) * D]
                self.expected_a[f["addr"] + token // R * f["stride"] + q, token % R, : len(piece)] = piece
        giver = cocotb.start_soon(give(self.dut, Descriptor("LOAD_IMAGE", f)))
        seen = self.progress
        while not giver.done():
            await RisingEdge(self.dut.clk_i)
            now = int(self.dut.progress_o.value)
            assert now in (seen, seen + 1)
            if now != seen:
                seen = now
                upto = f["addr"] + (now - self.progress) * f["stride"]
                assert np.array_equal(self.a.data[f["addr"] : upto], self.expected_a[f["addr"] : upto])
        self.progress += tiles

    def _geometry(self) -> dict[str, int]:
        """A small image whose bands are whole beats and whose patches fit the bank."""
        rng = self.rng
        while True:
            patch_h, patch_w = rng.choice((1, 2, 4, 7, 8)), rng.choice((1, 2, 4, 7, 8, 12, 16, 32))
            channels, grid_h, grid_w = rng.randint(1, 3), rng.randint(1, 4), rng.randint(1, 9)
            stride = -(-channels * patch_h * patch_w // D) + rng.randrange(2)
            size = -(-grid_h * grid_w // R) * stride
            bytes_ = channels * grid_h * patch_h * grid_w * patch_w
            if patch_h * grid_w * patch_w % D == 0 and size < WORDS and bytes_ < 1500:
                break
        most = min(patch_w & -patch_w, D)
        piece = rng.choice([p for p in (1, 2, 4, 8, 16) if p <= most][-2:])
        return {
            "channels": channels, "patch_h": patch_h, "patch_w": patch_w, "piece": piece, "grid_h": grid_h,
            "grid_w": grid_w, "addr": rng.randrange(WORDS - size), "stride": stride,
        }  # fmt: skip


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS))
async def all_kinds(dut: Any, stall: str) -> None:
    rng = random.Random(f"{CONFIG.hash} {stall}")
    bench = Bench(dut, rng, stall)
    await bench.begin()
    for slot in range(4):
        await bench._table(2, slot)
    kinds = ["params", "norm", "table", "rows", "store", "picture"] * 8
    rng.shuffle(kinds)
    for kind in kinds:
        await bench.copies(kind)


@cocotb.test()
async def waits(dut: Any) -> None:
    """Nothing is asked of memory before the waits are met."""
    bench = Bench(dut, random.Random(4), "none")
    await bench.begin()
    fields = {"offset": 64, "addr": 3, "words": 5, "bank": 1}
    giver = cocotb.start_soon(give(dut, Descriptor("LOAD_ROWS", fields, {"vu": (9, 0)})))
    for value in (0, 8):
        dut.progress_i.value = progress({"vu": value, "mm": 100})
        for _ in range(30):
            await RisingEdge(dut.clk_i)
            assert not int(dut.rd_cmd_valid_o.value)
            assert not int(dut.busy_o.value)
    dut.progress_i.value = progress({"vu": 9})
    await giver
    assert bench.x.writes == 5 * R


@cocotb.test()
async def reset(dut: Any) -> None:
    """A reset at any time forgets all that was in flight (the engines are reset with the unit)."""
    for turn in range(10):
        bench = Bench(dut, random.Random(turn), "both")
        tasks = await bench.begin()
        await bench._table(2, 0)
        giver = cocotb.start_soon(bench.copies(("store", "picture", "rows", "params")[turn % 4]))
        for _ in range(bench.rng.randint(1, 60)):
            await RisingEdge(dut.clk_i)
        for task in (giver, *tasks):
            task.cancel()
        dut.desc_valid_i.value = 0
        bench = Bench(dut, random.Random(turn), "both")
        tasks = await bench.begin()
        for slot in range(4):
            await bench._table(2, slot)
        for kind in ("picture", "rows", "store", "params", "norm", "table"):
            await bench.copies(kind)
        for task in tasks:
            task.cancel()


@cocotb.test()
async def throughput(dut: Any) -> None:
    """One beat per cycle of constant rows, one piece per cycle of an image."""
    rng = random.Random(1)
    bench = Bench(dut, rng, "none")
    await bench.begin()
    await bench.copies("table")
    await bench._table(2, 0)
    await idle(dut)
    words = 64
    cocotb.start_soon(give(dut, Descriptor("LOAD_ROWS", {"offset": 0, "addr": 3, "words": words, "bank": 0})))
    assert await _cycles(dut) <= words * R + 12
    bench.expected_a[:] = bench.a.data
    bench.progress += 1
    image = {"channels": 1, "patch_h": 4, "patch_w": 4, "piece": 4, "grid_h": 4, "grid_w": 8, "stride": 2}
    picture = cocotb.start_soon(bench.picture({**image, "addr": 5}))
    assert await _cycles(dut) <= 4 * 8 * 16 // 4 + 80
    await picture


async def _cycles(dut: Any) -> int:
    while not int(dut.busy_o.value):
        await RisingEdge(dut.clk_i)
    return await idle(dut)
