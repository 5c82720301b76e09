"""Hashes are equal for equal content, however it is stored."""

import hashlib
import math

import numpy as np

from tmcnet.hashing import bytes_digest, file_digest, json_digest, pixel_digest, table_digest

VALUES = np.arange(24, dtype="f4").reshape(2, 3, 4)


def test_a_file_has_its_sha256(tmp_path):
    path = tmp_path / "some.tif"
    path.write_bytes(b"bytes" * 100_000)
    assert file_digest(path) == hashlib.sha256(b"bytes" * 100_000).hexdigest()


def test_a_text_is_hashed_in_utf_8():
    assert bytes_digest("größer") == bytes_digest("größer".encode()) == hashlib.sha256("größer".encode()).hexdigest()


def test_the_order_of_keys_does_not_count_in_plain_values():
    assert (
        json_digest({"a": 1, "b": [1, 2]}) == json_digest({"b": [1, 2], "a": 1}) != json_digest({"a": 1, "b": [2, 1]})
    )
    assert json_digest([1]) == hashlib.sha256(b"[1]").hexdigest()


def test_the_order_of_rows_does_not_count_in_a_table(tmp_path):
    def digest(*lines):
        path = tmp_path / "table.csv"
        path.write_bytes(b"".join(lines))
        return table_digest(path)

    same = digest(b"tile,x\n", b"a,1\n", b"b,2\n")
    assert same == hashlib.sha256(b"tile,x\na,1\nb,2\n").hexdigest()
    assert digest(b"tile,x\n", b"b,2\n", b"a,1") == digest(b"tile,x\n", b"b,2\n", b"a,1\n") == same
    assert len({same, digest(b"tile,x\n", b"a,1\n"), digest(b"tile,y\n", b"a,1\n", b"b,2\n")}) == 3
    assert digest(b"tile,x\r\n", b"b,2\r\n", b"a,1") == digest(b"tile,x\r\n", b"a,1\r\n", b"b,2\r\n")


def test_pixels_have_one_digest_in_any_memory_order():
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
