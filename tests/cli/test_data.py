"""Every way in for data, and every sentence that refuses it."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from intaglio.data import Normalization, fashion_mnist, load_labels, load_samples, parse_channels
from intaglio.data import datasets as module
from intaglio.data.idx import read_idx
from intaglio.errors import InputError
from intaglio.feed import real_values

SHAPE = (1, 4, 6)


def save_image(path: Path, size: tuple[int, int] = (6, 4), mode: str = "L", value: int = 7) -> Path:
    Image.new(mode, size, value).save(path)
    return path


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_a_folder_of_images_is_sorted_by_name(tmp_path: Path) -> None:
    for name, value in (("b.png", 2), ("a.jpg", 1), ("c.PNG", 3)):
        save_image(tmp_path / name, value=value)
    (tmp_path / "readme.txt").write_text("not an image")
    samples = load_samples(tmp_path, SHAPE)
    assert samples.names == ["a.jpg", "b.png", "c.PNG"]
    assert samples.values.shape == (3, *SHAPE)
    assert samples.values.dtype == np.uint8
    assert samples.are_pixels
    assert samples.values[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert len(load_samples(tmp_path, SHAPE, limit=2)) == 2


def test_a_colour_image_is_channels_first(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (1, 2, 3)).save(tmp_path / "a.png")
    pixels = load_samples(tmp_path / "a.png", (3, 4, 6)).values
    assert pixels.shape == (1, 3, 4, 6)
    assert pixels[0, :, 0, 0].tolist() == [1, 2, 3]


def test_an_image_of_another_size(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "b.png", size=(5, 4))
    with pytest.raises(
        InputError, match=r"b\.png: expected an image of 6x4 pixels, not 5x4; images are not resized"
    ):
        load_samples(tmp_path, SHAPE)


def test_an_image_deeper_than_8_bits(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", mode="I;16", value=4000)
    with pytest.raises(InputError, match=r"a\.png: expected 8 bits per channel, not an image of mode 'I;16'"):
        load_samples(tmp_path, SHAPE)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(InputError, match=r"a\.png: is not an image of a known format"):
        load_samples(tmp_path, SHAPE)


def test_a_truncated_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"a\.png: cannot be decoded"):
        load_samples(path, (1, 64, 64))


def test_an_empty_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a folder with images .* it holds none"):
        load_samples(tmp_path, SHAPE)
    with pytest.raises(InputError, match=r"none\.png: there is no such file"):
        load_samples(tmp_path / "none.png", SHAPE)


@pytest.mark.parametrize("shape", [(2, 4, 6), (16,), (1, 2, 4, 6)])
def test_images_for_a_model_that_takes_none(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"images fit inputs of 1 or 3 channels .*: give a \.npy file"):
        load_samples(save_image(tmp_path / "a.png"), shape)


def test_npy_keeps_pixels_and_turns_the_rest_into_float32(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((2, *SHAPE), np.uint8))
    np.save(tmp_path / "r.npy", np.zeros((2, *SHAPE), np.float64))
    assert load_samples(tmp_path / "p.npy", SHAPE).are_pixels
    real = load_samples(tmp_path / "r.npy", SHAPE)
    assert real.values.dtype == np.float32
    assert real.names == ["r.npy[0]", "r.npy[1]"]


def test_one_sample_without_batch_dimension(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(SHAPE, np.float32))
    assert load_samples(tmp_path / "x.npy", SHAPE).values.shape == (1, *SHAPE)


def test_greyscale_images_without_channel(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 4, 6), np.uint8))
    assert load_samples(tmp_path / "x.npy", SHAPE).values.shape == (5, *SHAPE)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (
            np.zeros((2, 1, 4, 5), np.float32),
            r"expected an array of shape \[N, 1, 4, 6\], not \[2, 1, 4, 5\]",
        ),
        (np.float32(1), r"expected an array of shape \[N, 1, 4, 6\], not \[\]"),
        (np.zeros((0, *SHAPE), np.float32), "expected at least one sample, it holds none"),
        (np.zeros((1, *SHAPE), np.complex64), "expected integers or floats, not complex64"),
        (np.zeros((1, *SHAPE), np.bool_), "expected integers or floats, not bool"),
        (np.full((1, *SHAPE), np.nan, np.float32), "expected finite values, it holds NaN or infinity"),
        (np.full((1, *SHAPE), None), r"is not a \.npy file of numbers: Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, array: np.ndarray, sentence: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=rf"x\.npy: {sentence}"):
        load_samples(tmp_path / "x.npy", SHAPE)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_npy_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.npy"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_samples(path, SHAPE)


def test_an_archive_and_a_missing_npy(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(InputError, match=r"expected one array \(\.npy\), not an archive of several"):
        load_samples(tmp_path / "x.npz", SHAPE)
    with pytest.raises(InputError, match=r"none\.npy: there is no such file"):
        load_samples(tmp_path / "none.npy", SHAPE)


def test_normalization_per_channel(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (0, 255, 51)).save(tmp_path / "a.png")
    samples = load_samples(tmp_path / "a.png", (3, 4, 6))
    real = real_values(samples, Normalization((0.0, 0.5, 0.2), (1.0, 0.5, 0.1)))
    assert real.dtype == np.float32
    np.testing.assert_allclose(real[0, :, 0, 0], [0.0, 1.0, 0.0], atol=1e-7)


def test_real_values_are_not_normalized(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full(SHAPE, 0.25, np.float32))
    samples = load_samples(tmp_path / "x.npy", SHAPE)
    assert (real_values(samples, Normalization((9.0,), (9.0,))) == np.float32(0.25)).all()


def test_a_wrong_number_of_channels() -> None:
    pixels = np.zeros((1, 3, 2, 2), np.uint8)
    with pytest.raises(InputError, match=r"--mean: expected 1 or 3 values \(one per channel\), not 2"):
        Normalization((0.1, 0.2)).apply(pixels)
    with pytest.raises(InputError, match="--std: expected 1 or 3 values"):
        Normalization((0.1,), (1.0, 1.0)).apply(pixels)


def test_channel_options() -> None:
    assert parse_channels("--mean", None) is None
    assert parse_channels("--mean", "0.1, 0.2,0.3") == [0.1, 0.2, 0.3]
    with pytest.raises(InputError, match=r"--mean: expected numbers separated by commas, not '0\.1;2'"):
        parse_channels("--mean", "0.1;2")
    with pytest.raises(InputError, match="--std: expected positive numbers, not '0'"):
        parse_channels("--std", "0")
    with pytest.raises(InputError, match="--std: expected finite numbers, not 'nan'"):
        parse_channels("--std", "nan")


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\ndog\n\n")
    assert load_labels(path, 2) == ["cat", "dog"]
    with pytest.raises(InputError, match=r"labels\.txt: expected 3 class names, one per line, not 2"):
        load_labels(path, 3)
    with pytest.raises(InputError, match=r"none\.txt: there is no such file"):
        load_labels(tmp_path / "none.txt", 2)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=r"labels\.txt: cannot be read as text"):
        load_labels(path, 2)


def test_fashion_mnist_from_a_folder(tmp_path: Path) -> None:
    write_idx(
        tmp_path / "t1k-images-idx3-ubyte.gz", np.arange(3 * 28 * 28).astype(np.uint8).reshape(3, 28, 28)
    )
    write_idx(tmp_path / "t1k-labels-idx1-ubyte.gz", np.array([1, 2, 3], np.uint8))
    dataset = fashion_mnist(tmp_path)
    assert dataset.images.shape == (3, 1, 28, 28)
    assert dataset.labels.tolist() == [1, 2, 3]
    assert dataset.source == f"t1k-images-idx3-ubyte.gz in {tmp_path}"
    assert len(dataset.first(2).images) == 2
    assert len(dataset.first(None).images) == 3
    with pytest.raises(InputError, match="--count: expected 1 to 3 images of t1k"):
        dataset.first(4)


def test_fashion_mnist_prefers_the_full_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, shipped = tmp_path / "full", tmp_path / "shipped"
    for folder, split, count in ((full, "t10k", 4), (shipped, "t1k", 2)):
        folder.mkdir()
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", np.zeros((count, 28, 28), np.uint8))
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", np.zeros(count, np.uint8))
    monkeypatch.setattr(module, "example_folder", lambda _: shipped)
    monkeypatch.setattr(module, "FASHION_MNIST_FOLDER", tmp_path / "missing")
    assert len(fashion_mnist().images) == 2
    monkeypatch.setattr(module, "FASHION_MNIST_FOLDER", full)
    assert len(fashion_mnist().images) == 4


def test_fashion_mnist_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected t10k-images-idx3-ubyte\.gz in .*; install the Debian package"
    ):
        fashion_mnist(tmp_path)


def test_labels_that_do_not_belong_to_the_images(tmp_path: Path) -> None:
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros((3, 28, 28), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(2, np.uint8))
    with pytest.raises(
        InputError, match=r"expected images \[N, H, W\] with one label each, not \[3, 28, 28\]"
    ):
        fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (gzip.compress(b"\0\0\x0d\1", mtime=0), "expected an idx file of unsigned bytes"),
        (gzip.compress(b"", mtime=0), "expected an idx file of unsigned bytes"),
        (gzip.compress(b"\0\0\x08\3\0\0", mtime=0), "is truncated: its header needs 16 bytes, it has 6"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\5ab", mtime=0), r"shape \[5\] needs 5 bytes, it has 2"),
        (b"plain", "cannot be read as gzip"),
        (gzip.compress(b"\0" * 99, mtime=0)[:-10], "cannot be read as gzip"),
    ],
    ids=["type", "empty", "header", "data", "plain", "cut"],  # gzip's own bytes are no stable names
)
def test_malformed_idx_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.gz: {sentence}"):
        read_idx(tmp_path / "x.gz")


def test_a_missing_idx_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.gz: there is no such file"):
        read_idx(tmp_path / "x.gz")
