"""Write the small extracts of Fashion-MNIST that are kept beside the models."""

import argparse
from pathlib import Path

import numpy as np
from dataset import CLASSES, DATASET_DIR, HERE, load_split, write_idx
from numpy.typing import NDArray
from PIL import Image
from quantize import spread

TEST_COUNT = 1000
PICTURE_COUNT = 20
CALIBRATION_COUNT = 256


def write_test_extract(images: NDArray[np.uint8], labels: NDArray[np.uint8], folder: Path) -> None:
    """Write the first test images and their labels in the dataset's own format."""
    write_idx(folder / "t1k-images-idx3-ubyte.gz", images[:TEST_COUNT])
    write_idx(folder / "t1k-labels-idx1-ubyte.gz", labels[:TEST_COUNT])


def write_pictures(images: NDArray[np.uint8], labels: NDArray[np.uint8], folder: Path) -> None:
    """Write the first test images as PNG files named by position and class number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(PICTURE_COUNT):
        Image.fromarray(images[number]).save(folder / f"{number:02d}_{labels[number]}.png")


def main() -> None:
    """Write every extract."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATASET_DIR)
    parser.add_argument("--output", type=Path, default=HERE)
    args = parser.parse_args()
    images, labels = load_split("t10k", args.data)
    write_test_extract(images, labels, args.output)
    write_pictures(images, labels, args.output / "images")
    (args.output / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    train_images, _ = load_split("train", args.data)
    np.save(args.output / "calibration.npy", spread(train_images, CALIBRATION_COUNT))


if __name__ == "__main__":
    main()
