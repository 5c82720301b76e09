"""Folds for cross-validation: every group is tested once."""

import numpy as np
import pytest

from tests.splits.tile_indexes import build_index
from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError
from tmcnet.splits.splits import make_splits, verify

CONFIG = SplitsConfig(block_size=64, folds=4, fractions=[25, 100], subsets=1)


def lists_of(index, tmp_path, **keys):
    """Names of the tiles of each part, for every fold."""
    found = []
    for fold in range(1, (keys.get("folds") or CONFIG.folds) + 1):
        config = CONFIG.model_copy(update={**keys, "fold": fold})
        folder = tmp_path / f"fold{fold}"
        make_splits(index, config, folder)
        assert verify(folder, index, config) == []
        found.append({part: (folder / f"{part}_RGB.txt").read_text().split() for part in ("train", "val", "test")})
    return found


def test_every_labelled_tile_is_tested_once(index_at, tmp_path):
    table = build_index(scenes=4, side=8)
    folds = lists_of(index_at(table), tmp_path)
    tested = [tile for fold in folds for tile in fold["test"]]
    assert sorted(tested) == sorted(table.loc[table["label_share"] > 0, "tile"])
    sizes = [len(fold["test"]) for fold in folds]
    assert max(sizes) - min(sizes) <= 0.1 * sum(sizes)


def test_the_next_fold_validates(index_at, tmp_path):
    folds = lists_of(index_at(build_index(scenes=4, side=8)), tmp_path)
    for n, fold in enumerate(folds):
        assert fold["val"] == folds[(n + 1) % len(folds)]["test"]
        assert not set(fold["train"]) & {*fold["val"], *fold["test"]}


def test_unlabelled_tiles_always_serve_pretraining_unless_their_group_is_tested(index_at, tmp_path):
    table = build_index(scenes=2, side=8, unlabelled=0)
    table.loc[table["scene"] == "s1", "label_share"] = 0
    for fold in lists_of(index_at(table), tmp_path):
        assert {name for name in fold["train"] if name.startswith("s1")} == set(
            table.loc[table["scene"] == "s1", "tile"]
        )


def test_class_shares_are_alike(index_at, tmp_path):
    table = build_index(scenes=6, side=8, unlabelled=0, rare=(12,))
    shares = [name for name in table if name.startswith("share_")]
    rows = table.set_index("tile")
    areas = rows[shares].mul(rows["label_share"], axis=0)
    wanted = areas.sum() / areas.sum().sum()
    for fold in lists_of(index_at(table), tmp_path):
        found = areas.loc[fold["test"]].sum()
        assert (found > 0).all()
        assert np.abs(found / found.sum() - wanted).max() < 0.05


def test_a_guard_band_keeps_parts_apart_in_every_fold(index_at, tmp_path):
    table = build_index(scenes=3, side=12, unlabelled=0)
    rows = table.set_index("tile")
    for fold in lists_of(index_at(table), tmp_path, guard=32, block_size=128, folds=3):
        train, test = (rows.loc[fold[part]] for part in ("train", "test"))
        near = (
            (train["scene"].to_numpy()[:, None] == test["scene"].to_numpy())
            & (np.abs(train["row"].to_numpy()[:, None] - test["row"].to_numpy()) < 64)
            & (np.abs(train["col"].to_numpy()[:, None] - test["col"].to_numpy()) < 64)
        )
        assert len(train)
        assert not near.any()


def test_too_few_groups(index_at, tmp_path):
    config = CONFIG.model_copy(update={"method": "scenes", "folds": 5})
    with pytest.raises(InputError, match="3 scenes with labelled tiles cannot be divided into 5 folds"):
        make_splits(index_at(build_index(scenes=3)), config, tmp_path / "splits")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"folds": 2}, "greater than or equal to 3"),
        ({"folds": 4, "fold": 5}, "`fold` is 5, but there are 4 `folds`"),
        ({"fold": 2}, "there are no `folds`"),
        ({"folds": 3, "method": "given"}, "`method` cannot be `given`"),
    ],
)
def test_config(keys, message):
    with pytest.raises(ValueError, match=message):
        SplitsConfig(**keys)
