import json

import numpy as np
import pytest

from tests.splits.tile_indexes import build_index
from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError
from tmcnet.splits.files import read_list
from tmcnet.splits.index import read_index
from tmcnet.splits.parts import divide
from tmcnet.splits.splits import make_splits, verify

CONFIG = SplitsConfig(block_size=64, guard=1, fractions=[50, 100], max_misalignment=1.5)
OFF = CONFIG.model_copy(update={"max_misalignment": None})


@pytest.fixture
def table():
    """Every fifth tile is 1 or 2 pixels off, every third says nothing, the others are good."""
    table = build_index(side=8)
    number = np.arange(len(table))
    return table.assign(alignment_px=np.where(number % 3 == 0, np.nan, np.where(number % 5 == 0, number % 3, 0.4)))


def split(path, config, folder):
    make_splits(path, config, folder)
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.txt"))}


@pytest.mark.parametrize("method", ["blocks", "scenes"])
def test_badly_registered_tiles_are_in_no_part(table, index_at, tmp_path, method, capfd):
    config, path = CONFIG.model_copy(update={"method": method}), index_at(table)
    split(path, config, tmp_path / "splits")
    manifest = json.loads((tmp_path / "splits" / "manifest.json").read_text())
    bad = set(table["tile"][table["alignment_px"] > 1.5])
    listed = {tile for file in (tmp_path / "splits").glob("*.txt") for tile in read_list(file)}
    assert bad and bad <= set(manifest["dropped"]) and not bad & listed
    assert listed & set(table["tile"][table["alignment_px"].isna()])
    assert listed & set(table["tile"][table["alignment_px"] == 1])
    index = read_index(path, config)
    division = divide(index, config, "")
    assert set(index.tiles[division.misaligned]) == bad
    assert not (division.misaligned & division.by_guard).any()
    reasons = [manifest[f"dropped_{reason}"] for reason in ("by_guard", "misaligned", "unlabelled")]
    assert reasons[1] == len(bad) and sum(reasons) == len(manifest["dropped"])
    text = f"{len(bad)} of 256 tiles are in no part, since their sensors are off by more than 1.5 pixels"
    assert [w for w in manifest["warnings"] if w.startswith(text)]
    assert text in capfd.readouterr().err
    assert verify(tmp_path / "splits", path, config) == []


def test_the_others_are_divided_as_if_there_were_no_more(table, index_at, tmp_path):
    without = table[~(table["alignment_px"] > 1.5)]
    found = split(index_at(table), CONFIG, tmp_path / "a")
    assert found == split(index_at(without, "b.csv"), CONFIG, tmp_path / "b")
    assert found != split(index_at(table), OFF, tmp_path / "c")


def test_with_the_key_off_or_nothing_known_the_lists_stay(table, index_at, tmp_path):
    expected = split(index_at(table.drop(columns="alignment_px")), OFF, tmp_path / "a")
    assert split(index_at(table), OFF, tmp_path / "b") == expected
    assert split(index_at(table.assign(alignment_px="")), CONFIG, tmp_path / "c") == expected


def test_nothing_left_is_an_error(table, index_at, tmp_path):
    path = index_at(table.assign(alignment_px=np.linspace(2.25, 9, len(table))))
    with pytest.raises(InputError) as caught:
        make_splits(path, CONFIG, tmp_path / "splits")
    text = str(caught.value)
    assert "`splits.max_misalignment`: (1.5) leaves no labelled tile: the best of them has 2." in text
    assert "`alignment.png`" in text


def test_an_index_without_the_column(table, index_at, tmp_path):
    with pytest.raises(InputError, match=r"no column `alignment_px`.*Or set `splits.max_misalignment` to null"):
        make_splits(index_at(table.drop(columns="alignment_px")), CONFIG, tmp_path / "splits")
