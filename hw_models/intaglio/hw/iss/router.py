"""Descriptors of the router in unit cp: ROUTE and MOVE_ROWS."""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.descriptors import Descriptor
from intaglio.hw.iss.layout import as_channels, tensor_cells, word_count
from intaglio.hw.iss.machine import Machine
from intaglio.hw.iss.memory import ROUTER_SLOTS, TOP, Data, Write


def route(machine: Machine, _index: int, d: Descriptor, _low: int, _high: int) -> list[Write]:
    """The k experts of every token: queues and their lengths, gate weights and their sum."""
    config, memories = machine.config, machine.memories
    at = np.arange(d["rows"])
    cells = tensor_cells(config, d["addr"], d["stride"], at, word_count(config, d["experts"], d["wide"]))
    logits = as_channels(memories.bank_a.read(cells), d["wide"])[:, : d["experts"]].astype(np.int64)
    # Stable: of equal logits the lower expert comes first.
    slots = np.argsort(-logits, axis=1, kind="stable")[:, : d["k"]]
    weights = _weights(machine, logits)
    # Tokens that it does not route have no weights any more.
    tokens, totals = np.arange(config.max_keys), np.zeros(config.max_keys, np.int64)
    gates = np.zeros((config.max_keys, TOP), np.int64)
    gates[at, : d["k"]] = np.take_along_axis(weights, slots, axis=1)
    totals[at] = (gates[at] if d["normalize"] else weights).sum(axis=1)
    lengths, queues = _queues(machine, slots)
    experts = np.arange(config.experts)
    return [
        Write(memories.gates, (tokens,), gates, defined=tokens < d["rows"]),
        Write(memories.totals, (tokens,), totals, defined=tokens < d["rows"]),
        Write(memories.lengths, (experts,), lengths),
        Write(memories.queues, (experts,), queues),
    ]


def _weights(machine: Machine, logits: Data) -> Data:
    """int64 [tokens, experts]: 15 bits, the largest of a token 32767."""
    distance = logits.max(axis=1, keepdims=True) - logits
    coarse, fine = machine.memories.router.read((np.arange(ROUTER_SLOTS),))
    return np.asarray((coarse[distance >> 8] * fine[distance & 255] + (1 << 16)) >> 17)


def _queues(machine: Machine, slots: Data) -> tuple[Data, Data]:
    """Length and queue of every expert, from the experts [tokens, k] of every token."""
    config = machine.config
    lengths = np.bincount(slots.ravel(), minlength=config.experts)
    queues = np.zeros((config.experts, config.max_keys, 2), np.int64)
    for expert in np.flatnonzero(lengths):
        queues[expert, : lengths[expert]] = np.argwhere(slots == expert)
    return lengths, queues


def move_rows(machine: Machine, _index: int, d: Descriptor, _low: int, _high: int) -> list[Write]:
    """Gather rows of the tokens in a queue, or scatter results to the slots of their tokens."""
    config, memories = machine.config, machine.memories
    length = machine.rows(d)
    if not length:
        return []
    token, slot = memories.queues.read((np.array([d["queue"] - 1]),))[0, :length].T
    place = np.arange(length)
    source, target = (place, token) if d["scatter"] else (token, place)
    data = memories.bank_a.read(tensor_cells(config, d["s_addr"], d["s_stride"], source, d["chunks"]))
    word, row = tensor_cells(config, d["o_addr"], d["o_stride"], target, d["chunks"])
    shift = slot * d["slot_stride"] if d["scatter"] else 0 * slot
    return [Write(memories.bank_a, (word + shift[:, None], row), data)]
