import numpy as np
import pytest

from tests.splits.tile_indexes import build_index
from tmcnet.config import SplitsConfig
from tmcnet.hashing import table_digest
from tmcnet.splits.index import close_pairs, read_index
from tmcnet.splits.parts import group_tiles


@pytest.mark.parametrize("guard", [0, 1, 7, 40])
@pytest.mark.parametrize("seed", range(3))
def test_close_pairs_agree_with_comparing_all(index_at, guard, seed):
    rng = np.random.default_rng(seed)
    table = build_index(seed, scenes=3, side=5)
    for name, low, high in (("row", -50, 200), ("col", 0, 200), ("height", 8, 40), ("width", 8, 40)):
        table[name] = rng.integers(low, high, len(table))
    index = read_index(index_at(table), SplitsConfig())
    key = rng.integers(0, 3, len(table))
    row, col, height, width = index.window.T
    expected = [
        (i, j)
        for i in range(len(table))
        for j in range(i + 1, len(table))
        if index.scene[i] == index.scene[j]
        and key[i] != key[j]
        and max(row[i], row[j]) - min(row[i] + height[i], row[j] + height[j]) < guard
        and max(col[i], col[j]) - min(col[i] + width[i], col[j] + width[j]) < guard
    ]
    assert [tuple(pair) for pair in close_pairs(index, key, guard).tolist()] == expected


def test_blocks_go_by_the_centre_of_a_tile(index_at):
    index = read_index(index_at(build_index(scenes=2, side=5, size=32, stride=16)), SplitsConfig())
    groups = group_tiles(index, SplitsConfig(block_size=40))
    for i in range(len(index.tiles)):
        row, col, height, width = index.window[i]
        centre = [(row + height / 2) // 40 * 40, (col + width / 2) // 40 * 40]
        assert groups.places[groups.of[i]].tolist() == [index.scene[i], *centre]


def test_hash_of_a_sorted_index_is_that_of_the_file(index_at, tmp_path):
    import hashlib

    path = index_at(build_index(side=3))
    assert table_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    header, *rows = path.read_bytes().splitlines(keepends=True)
    (tmp_path / "other.csv").write_bytes(b"".join([header, *rows[::-1]]).rstrip(b"\n"))
    assert table_digest(tmp_path / "other.csv") == table_digest(path)
    (tmp_path / "less.csv").write_bytes(b"".join([header, *rows[1:]]))
    assert table_digest(tmp_path / "less.csv") != table_digest(path)
