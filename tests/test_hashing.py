"""Hashes of pixels: equal for equal content, whatever it lies in."""

import hashlib
import math

import numpy as np

from tmcnet.hashing import file_digest, pixel_digest

VALUES = np.arange(24, dtype="f4").reshape(2, 3, 4)


def test_a_file_has_its_sha256(tmp_path):
    path = tmp_path / "some.tif"
    path.write_bytes(b"bytes" * 100_000)
    assert file_digest(path) == hashlib.sha256(b"bytes" * 100_000).hexdigest()


def test_pixels_have_one_digest_in_whatever_memory_order():
    digest = pixel_digest(VALUES)
    assert len(digest) == 16
    int(digest, 16)
    assert pixel_digest(np.asfortranarray(VALUES)) == digest
    assert pixel_digest(np.repeat(VALUES, 2, axis=2)[:, :, ::2]) == digest


def test_type_shape_order_and_values_count():
    others = [
        (VALUES.astype("f8"),),
        (VALUES.reshape(3, 2, 4),),
        (VALUES + (VALUES == 5),),
        (VALUES[:1], VALUES[1:]),
        (VALUES[1:], VALUES[:1]),
    ]
    assert len({pixel_digest(*arrays) for arrays in (*others, (VALUES,))}) == 6


def test_all_nan_are_one():
    """Their bits differ between processors and libraries."""
    first, second = VALUES.copy(), VALUES.copy()
    first[0, 0, 0] = math.nan
    second.view("u4")[0, 0, 0] = 0xFFC00001
    assert np.isnan(second[0, 0, 0])
    assert first.tobytes() != second.tobytes()
    assert pixel_digest(first) == pixel_digest(second) != pixel_digest(VALUES)
