"""Images to raw pixels. Nothing is resized: what a model expects is what it must be given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")

_MODES = {1: "L", 3: "RGB"}

# Deeper pixels than 8 bits would be clipped by a conversion, not scaled.
_DEEP = ("I", "F")


def image_files(path: Path) -> list[Path]:
    """`path` itself, or the images of the folder `path`, sorted by name. Raises InputError if there is none."""
    if not path.is_dir():
        return [path]
    files = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{path}: expected a folder with images ({', '.join(SUFFIXES)}), it holds none.")
    return files


def load_images(files: Sequence[Path], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Pixels of `files` as uint8 [N, C, H, W], where `shape` is the model's (C, H, W) with C = 1 or 3.

    Raises InputError naming the first file that cannot be read or has another size.
    """
    if len(shape) != 3 or shape[0] not in _MODES:
        raise InputError(
            f"images fit inputs of 1 or 3 channels by height by width; this model's input is {list(shape)}: "
            "give a .npy file."
        )
    return np.stack([_load_image(path, shape[0], shape[1], shape[2]) for path in files])


def _load_image(path: Path, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.size != (width, height):
                raise InputError(
                    f"{path}: expected an image of {width}x{height} pixels, not {image.width}x{image.height}; "
                    "images are not resized."
                )
            if image.mode.startswith(_DEEP):
                raise InputError(f"{path}: expected 8 bits per channel, not an image of mode {image.mode!r}.")
            pixels = np.asarray(image.convert(_MODES[channels]), np.uint8)
    except UnidentifiedImageError:
        raise InputError(f"{path}: is not an image of a known format.") from None
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be decoded: {error}.") from None
    return pixels[np.newaxis] if channels == 1 else pixels.transpose(2, 0, 1)
