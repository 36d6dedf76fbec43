from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tsstore.demo import mnist
from tsstore.errors import TsstoreError

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
LABELS = np.array([7, 0, 9], dtype=np.uint8)


def as_idx(array: np.ndarray) -> bytes:
    """Encode by the definition of the format, not by the code under test."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_pair(directory: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> None:
    (directory / "t10k-images-idx3-ubyte").write_bytes(as_idx(images))
    (directory / "t10k-labels-idx1-ubyte").write_bytes(as_idx(labels))


arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6))


@given(array=arrays, compressed=st.booleans())
def test_an_idx_file_comes_back_as_it_was_written(tmp_path_factory, array, compressed):
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(gzip.compress(as_idx(array)) if compressed else as_idx(array))
    loaded = mnist.load_idx(path)
    assert loaded.dtype == np.uint8
    assert loaded.shape == array.shape
    np.testing.assert_array_equal(loaded, array)


@given(array=arrays, cut=st.integers(min_value=1, max_value=10_000))
def test_a_truncated_idx_file_is_never_an_array(tmp_path_factory, array, cut):
    content = as_idx(array)
    path = tmp_path_factory.mktemp("idx") / "short"
    path.write_bytes(content[: -min(cut, len(content))])
    with pytest.raises(TsstoreError, match="short"):
        mnist.load_idx(path)


def test_a_loaded_array_may_be_written_to(tmp_path):
    write_pair(tmp_path)
    images, labels = mnist.load_split(tmp_path, "t10k")
    images[:] = 1
    labels[:] = 2
    assert images.flags.writeable
    assert labels.flags.writeable


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "first bytes ''"),
        (b"\0\0\x08", "first bytes '00 00 08'"),
        (b"\x89PNG" + bytes(20), "'89 50 4e 47'"),
        (bytes([0, 1, 8, 1, 0, 0, 0, 0]), "'00 01 08 01'"),
        (bytes([0, 0, 0x0D, 1, 0, 0, 0, 0]), "'00 00 0d 01'"),
        (bytes([0, 0, 8, 0]), "0 dimensions"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 1]), "found 8 bytes and 3 dimensions"),
        (bytes([0, 0, 8, 255, 0, 0]), "found 6 bytes and 255 dimensions"),
        (as_idx(LABELS) + b"\0", "found 4 bytes after the header, expected 3"),
        (as_idx(LABELS)[:-1], "found 2 bytes after the header, expected 3"),
        (bytes([0, 0, 8, 2]) + b"\xff" * 8, "found 0 bytes after the header, expected 1844"),
        (gzip.compress(as_idx(IMAGES))[:-20], "damaged gzip data"),
        (gzip.compress(as_idx(IMAGES)) + b"junk", "damaged gzip data"),
        (b"\x1f\x8b\x08\0" + b"\xff" * 30, "damaged gzip data"),
        (b"\x1f\x8b", "damaged gzip data"),
    ],
)
def test_a_malformed_file_is_named_with_what_was_found(tmp_path, content, found):
    path = tmp_path / "digits.gz"
    path.write_bytes(content)
    with pytest.raises(TsstoreError) as caught:
        mnist.load_idx(path)
    assert str(path) in str(caught.value)
    assert found in str(caught.value)
    assert "expected" in str(caught.value)
    assert "fetch the file again" in str(caught.value)


def test_a_gzip_file_with_a_flipped_bit_is_refused(tmp_path):
    content = bytearray(gzip.compress(as_idx(IMAGES), compresslevel=0))
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped").write_bytes(content)
    with pytest.raises(TsstoreError, match="damaged gzip data"):
        mnist.load_idx(tmp_path / "flipped")


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path):
    with pytest.raises(TsstoreError, match=r"absent: cannot be read \(No such file"):
        mnist.load_idx(tmp_path / "absent")
    with pytest.raises(TsstoreError, match="check the path"):
        mnist.load_idx(tmp_path)


@pytest.mark.parametrize("split", ["train", "t10k"])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_split_is_found_under_each_usual_name(tmp_path, split, dot, suffix):
    for stem, kind, array in [("images", "idx3", IMAGES), ("labels", "idx1", LABELS)]:
        content = gzip.compress(as_idx(array)) if suffix else as_idx(array)
        (tmp_path / f"{split}-{stem}{dot}{kind}-ubyte{suffix}").write_bytes(content)
    images, labels = mnist.load_split(str(tmp_path), split)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


def test_a_missing_half_of_a_split_lists_the_names_that_were_tried(tmp_path):
    write_pair(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(TsstoreError) as caught:
        mnist.load_split(tmp_path, "t10k")
    message = str(caught.value)
    assert str(tmp_path) in message
    for name in ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"):
        assert f"{name}, " in message
        assert f"{name}.gz" in message


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(TsstoreError, match="no split 'test'; expected one of train, t10k"):
        mnist.load_split(tmp_path, "test")


@pytest.mark.parametrize(
    ("images", "labels", "found"),
    [
        (IMAGES, LABELS[:2], r"images \(3, 28, 28\) and labels \(2,\)"),
        (IMAGES[:, :27], LABELS, r"\(3, 27, 28\)"),
        (IMAGES.reshape(3, 784), LABELS, r"\(3, 784\)"),
        (IMAGES, LABELS[:, None], r"labels \(3, 1\)"),
        (LABELS, LABELS, r"images \(3,\)"),
        (IMAGES, LABELS + 1, "label 10, expected digits 0 to 9"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, images, labels, found):
    write_pair(tmp_path, images, labels)
    with pytest.raises(TsstoreError, match=found):
        mnist.load_split(tmp_path, "t10k")


def test_the_shipped_test_images_are_those_of_mnist():
    images, labels = mnist.test_images()
    assert (images.shape, images.dtype) == ((10_000, 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((10_000,), np.uint8)
    digest = hashlib.md5(as_idx(images), usedforsecurity=False).hexdigest()
    assert digest == "2646ac647ad5339dbf082846283269ea"
    digest = hashlib.md5(as_idx(labels), usedforsecurity=False).hexdigest()
    assert digest == "27ae3e4e09519cfbb04c329615203637"
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_the_shipped_files_carry_no_name_and_no_time_and_say_their_licence():
    data = Path(mnist.__file__).parent / "data"
    for path in data.glob("*.gz"):
        flags_and_time = path.read_bytes()[3:8]
        assert flags_and_time == bytes(5), path.name
    licence = (data / "LICENSE.md").read_text(encoding="utf-8")
    assert "LeCun" in licence
    assert "CC BY-SA 3.0" in licence
    assert "2646ac647ad5339dbf082846283269ea" in licence
    assert "27ae3e4e09519cfbb04c329615203637" in licence


def test_a_missing_shipped_file_says_to_install_again(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "DATA", tmp_path)
    with pytest.raises(TsstoreError, match="install tsstore again"):
        mnist.test_images()


def test_pixels_are_scaled_by_exactly_256():
    scaled = mnist.to_model_input(IMAGES)
    assert (scaled.shape, scaled.dtype) == ((3, 1, 28, 28), np.float32)
    np.testing.assert_array_equal(scaled[:, 0].astype(np.float64) * 256, IMAGES)
    assert scaled.max() == 255 / 256


@pytest.mark.parametrize("images", [IMAGES / 256, IMAGES[0], IMAGES.reshape(3, 784), LABELS])
def test_images_of_another_type_or_shape_are_not_scaled(images):
    with pytest.raises(TsstoreError, match=r"expected uint8 \(N, 28, 28\)"):
        mnist.to_model_input(images)


def test_no_image_at_all_is_a_legal_set_of_images():
    assert mnist.to_model_input(IMAGES[:0]).shape == (0, 1, 28, 28)


def test_reading_images_needs_no_torch():
    code = "import sys, tsstore.demo.mnist; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
