"""The idx file format of MNIST and its relatives, compressed with gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import InputError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The unsigned bytes of `path`, in the shape that its header states.

    Raises InputError if the file is missing, no gzip, no idx file of unsigned bytes, or truncated.
    """
    raw = _decompress(path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UNSIGNED_BYTE:
        raise InputError(
            f"{path}: expected an idx file of unsigned bytes, not one that starts with {raw[:4]!r}."
        )
    rank = raw[3]
    start = 4 + 4 * rank
    if len(raw) < start:
        raise InputError(f"{path}: is truncated: its header needs {start} bytes, it has {len(raw)}.")
    shape = struct.unpack(f">{rank}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise InputError(
            f"{path}: shape {list(shape)} needs {math.prod(shape)} bytes, it has {len(raw) - start}."
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _decompress(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as gzip: {error}.") from None
