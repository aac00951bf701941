"""Arrays from .npy files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import InputError


def load_npy(path: Path, shape: Sequence[int]) -> NDArray[Any]:
    """The array of `path` as [N, *shape]; one sample of exactly `shape` becomes a batch of one, and greyscale images
    [N, H, W] get the channel that a `shape` of (1, H, W) asks for.

    Raises InputError if the file is no .npy file, is not numeric, has another shape or holds NaN or infinity.
    """
    array = _read(path)
    if array.shape == tuple(shape):
        array = array[np.newaxis]
    elif array.shape[1:] == tuple(shape[1:]) and tuple(shape[:1]) == (1,):
        array = array[:, np.newaxis]
    if array.ndim == 0 or array.shape[1:] != tuple(shape):
        wanted = ", ".join(["N", *map(str, shape)])
        raise InputError(f"{path}: expected an array of shape [{wanted}], not {list(array.shape)}.")
    if not len(array):
        raise InputError(f"{path}: expected at least one sample, it holds none.")
    if array.dtype.kind not in "uif":
        raise InputError(f"{path}: expected integers or floats, not {array.dtype.name}.")
    if not np.isfinite(array).all():
        raise InputError(f"{path}: expected finite values, it holds NaN or infinity.")
    return array


def _read(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path}: is not a .npy file of numbers: {reason}.") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: expected one array (.npy), not an archive of several (.npz).")
    return array
