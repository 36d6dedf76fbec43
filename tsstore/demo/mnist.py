"""MNIST: reading idx files, and the 10,000 test images that come with the package.

An idx file is a header and an array in C order. The header is two zero bytes, one byte for the
element type, one for the number of dimensions, and each dimension as a big-endian ``uint32``.
MNIST stores unsigned bytes: images as (N, 28, 28), labels as (N,).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tsstore.demo import DATA, read
from tsstore.errors import TsstoreError

Split = Literal["train", "t10k"]

SPLITS: Final = ("train", "t10k")
IMAGE_SHAPE: Final = (28, 28)
CLASSES: Final = 10

_GZIP_MAGIC: Final = b"\x1f\x8b"
_UNSIGNED_BYTES: Final = b"\0\0\x08"
_FETCH_AGAIN: Final = "fetch the file again, or name another one"


def load_idx(path: str | Path) -> NDArray[np.uint8]:
    """Read one idx file of unsigned bytes, plain or compressed with gzip.

    Parameters
    ----------
    path
        The file. Whether it is compressed is told from its content, not from its name.

    Returns
    -------
    uint8 array of the shape that the file's header states; writable.

    Raises
    ------
    TsstoreError
        If the file cannot be read, is no idx file of unsigned bytes, or is shorter or longer
        than its header states.
    """
    return _parse_idx(read(path, "an idx file; check the path"), str(path))


def load_split(directory: str | Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the images and labels of one half of MNIST from a folder with its idx files.

    Parameters
    ----------
    directory
        Folder with the files under their usual names, such as ``t10k-images-idx3-ubyte.gz``
        or ``t10k-images.idx3-ubyte``.
    split
        ``"train"``, the 60,000 training images, or ``"t10k"``, the 10,000 test images.

    Returns
    -------
    images : uint8 (N, 28, 28), 0 is background
    labels : uint8 (N,), the digit 0 to 9

    Raises
    ------
    TsstoreError
        If the split is unknown, a file is missing or malformed, or the two files do not belong
        together.
    """
    if split not in SPLITS:
        raise TsstoreError(f"MNIST has no split {split!r}; expected one of {', '.join(SPLITS)}")
    images = load_idx(_find(Path(directory), f"{split}-images", "idx3-ubyte"))
    labels = load_idx(_find(Path(directory), f"{split}-labels", "idx1-ubyte"))
    _check_pair(images, labels, f"the {split} files in {directory}")
    return images, labels


def test_images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the 10,000 MNIST test images (t10k) that come with the package.

    Returns
    -------
    images : uint8 (10000, 28, 28), 0 is background
    labels : uint8 (10000,), the digit 0 to 9

    Raises
    ------
    TsstoreError
        If the installed files are missing or damaged.
    """
    return load_split(DATA, "t10k")


def to_model_input(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale images as the demo network was trained on them: value / 256.

    Parameters
    ----------
    images
        uint8 (N, 28, 28).

    Returns
    -------
    float32 (N, 1, 28, 28) in [0, 1); the division is exact.

    Raises
    ------
    TsstoreError
        If the images are of another type or shape.
    """
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE:
        raise TsstoreError(
            f"images: found {images.dtype} {images.shape}, expected uint8 (N, 28, 28); "
            "pass the images as they were loaded"
        )
    return images[:, np.newaxis].astype(np.float32) / np.float32(256)


def _find(directory: Path, stem: str, kind: str) -> Path:
    """Return the first file in the folder whose name is one of those that MNIST goes by."""
    names = [f"{stem}{dot}{kind}{suffix}" for dot in "-." for suffix in ("", ".gz")]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    folder = "install tsstore again" if directory == DATA else "name the folder that has it"
    raise TsstoreError(
        f"{directory}: found none of {', '.join(names)}; put one of them there, or {folder}"
    )


def _parse_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Turn the bytes of an idx file, which gzip may have compressed, into the array it holds."""

    def refusal(found: str, expected: str) -> TsstoreError:
        return TsstoreError(f"{name}: found {found}, expected {expected}; {_FETCH_AGAIN}")

    if content.startswith(_GZIP_MAGIC):  # An idx file itself begins with a zero byte.
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise refusal(f"damaged gzip data ({error})", "a whole gzip file") from error
    if len(content) < 4 or not content.startswith(_UNSIGNED_BYTES):
        raise refusal(
            f"the first bytes '{content[:4].hex(' ')}'",
            "'00 00 08' and the number of dimensions (an idx file of unsigned bytes)",
        )
    dimensions, start = content[3], 4 + 4 * content[3]
    if dimensions == 0 or len(content) < start:
        found = f"{len(content)} bytes and {dimensions} dimensions in the header"
        raise refusal(found, "at least one dimension and 4 bytes for each")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if len(content) - start != math.prod(shape):
        found = f"{len(content) - start} bytes after the header"
        raise refusal(found, f"{math.prod(shape)} for the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _check_pair(images: NDArray[np.uint8], labels: NDArray[np.uint8], name: str) -> None:
    """Check that two arrays are MNIST images and the labels of the same images."""
    if images.shape[1:] != IMAGE_SHAPE or labels.shape != images.shape[:1]:
        raise TsstoreError(
            f"{name}: found images {images.shape} and labels {labels.shape}, "
            "expected (N, 28, 28) and (N,); put files there that belong together"
        )
    if labels.size and labels.max() >= CLASSES:
        raise TsstoreError(
            f"{name}: found the label {labels.max()}, expected digits 0 to 9; "
            "put the labels of MNIST there"
        )
