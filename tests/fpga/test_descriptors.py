"""Encoding and decoding of descriptors and program files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.accelerator.descriptors import (
    BYTES,
    COMMON,
    KINDS,
    UNITS,
    Descriptor,
    ProgramFile,
    decode,
    encode,
)


@st.composite
def descriptors(draw):
    kind = draw(st.sampled_from(KINDS))
    fields = {entry.name: draw(st.integers(*entry.limits)) for entry in kind.fields}
    wait = st.tuples(st.integers(0, (1 << 24) - 1), st.integers(0, 255))
    waits = draw(st.dictionaries(st.sampled_from(UNITS), wait.filter(lambda pair: pair != (0, 0))))
    return Descriptor(kind.name, fields, waits)


@given(descriptors(), st.integers(0, 1 << 20))
def test_round_trip(descriptor, index):
    data = encode(descriptor, index)
    assert len(data) == BYTES
    assert int.from_bytes(data[2:4], "little") == index % (1 << 16)
    assert decode(data) == descriptor


@given(st.lists(descriptors(), max_size=4), st.integers(0, 2**32 - 1))
def test_file_round_trip(items, config_hash):
    file = ProgramFile(config_hash, 784, 192, 4096, items, spill_bytes=128)
    assert file.result_bytes == 64
    assert ProgramFile.unpack(file.pack()) == file


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_fields_do_not_overlap(kind):
    taken = set()
    for entry in (*COMMON, *kind.fields):
        bits = {32 * entry.word + entry.lsb + i for i in range(entry.width)}
        assert not taken & bits, entry.name
        taken |= bits
    assert max(taken) < 8 * BYTES


def test_errors():
    good = encode(Descriptor("GEMM", {"rows": 4}), 0)
    with pytest.raises(ValueError, match=r"GEMM: field rows must be in 0\.\.65535, not 65536"):
        encode(Descriptor("GEMM", {"rows": 65536}), 0)
    with pytest.raises(ValueError, match="GEMM: unknown field 'row'"):
        encode(Descriptor("GEMM", {"row": 1}), 0)
    with pytest.raises(ValueError, match="the checksum is"):
        decode(good[:8] + b"\1" + good[9:])
    file = ProgramFile(0, 0, 0, 0, [Descriptor("GEMM", {})]).pack()
    with pytest.raises(ValueError, match="does not begin with 'ITGP'"):
        ProgramFile.unpack(b"ELF" + file)
    with pytest.raises(ValueError, match="truncated or damaged"):
        ProgramFile.unpack(file[:-1])
    with pytest.raises(ValueError, match="descriptor 0: the checksum is"):
        ProgramFile.unpack(file[:-1] + b"\0")
