"""MNIST's format."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.readers.idx_images import Options, read

IMAGES = np.random.RandomState(0).randint(0, 256, (7, 5, 4), np.uint8)


def idx(path, array, packed):
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_images_and_labels(packed, tmp_path):
    idx(tmp_path / "x", IMAGES, packed)
    idx(tmp_path / "y", np.array([0, 2, 1, 0, 2, 1, 0], np.uint8), packed)
    images = read(Options("x", "y"), tmp_path)
    assert images.labels.tolist() == [0, 2, 1, 0, 2, 1, 0] and images.classes == ("0", "1", "2")
    assert images.names[3] == "x:3" and set(images.sources) == {"x", "y"}
    (start, block), = images.blocks(np.array([1, 4]))
    assert start == 0 and np.array_equal(block, np.repeat(IMAGES[[1, 4], :, :, None], 3, axis=3))
    assert (read(Options("x"), tmp_path).labels == -1).all()
    (_, negative), = read(Options("x", negative=True), tmp_path).blocks(np.array([1, 4]))
    assert np.array_equal(negative, 255 - block)


def test_bad_files(tmp_path):
    idx(tmp_path / "x", IMAGES, True)
    idx(tmp_path / "y", np.zeros(6, np.uint8), False)
    (tmp_path / "cut").write_bytes((tmp_path / "x").read_bytes()[:60])
    (tmp_path / "short").write_bytes(gzip.decompress((tmp_path / "x").read_bytes())[:-1])
    for options, message in ((Options("x", "y"), "6 labels for 7 images of .*x; they are of two splits"),
                             (Options("y"), "no IDX file of bytes with 3 dimensions; expected MNIST's images"),
                             (Options("cut"), "cut: cannot be read .*; fetch it again"),
                             (Options("short"), "139 values, its header says 7 x 5 x 4; it is cut off")):
        with pytest.raises(OODError, match=message):
            read(options, tmp_path)
