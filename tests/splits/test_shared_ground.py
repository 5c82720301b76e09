"""Scenes on the same ground whose pixels cannot be compared: of two UTM zones, or turned."""

import json

import numpy as np
import pandas as pd
import pytest
from affine import Affine
from rasterio.warp import transform

from tests.splits.tile_indexes import build_index
from tmcnet.config import SplitsConfig
from tmcnet.raster.io.geometry import GROUND, Grid, ground_columns
from tmcnet.splits.files import read_list
from tmcnet.splits.index import close_pairs, read_index
from tmcnet.splits.splits import make_splits, verify

SIDE, TILE = 10, 32
CONFIG = SplitsConfig(block_size=160, fractions=[100])
UTM33 = ("EPSG:32633", Affine(10, 0, 300_000, 0, -10, 5_300_000))


def at_the_border(angle=0.0):
    """The corner of the scene of zone 33 in zone 32, a little inside, and turned by an angle in degrees."""
    (x,), (y,) = transform("EPSG:32633", "EPSG:32632", [300_470], [5_299_310])
    return "EPSG:32632", Affine.translation(x, y) @ Affine.rotation(angle) @ Affine.scale(10, -10)


def turned_in_its_zone():
    return UTM33[0], Affine.translation(300_470, 5_299_310) @ Affine.rotation(30) @ Affine.scale(10, -10)


def build(*places):
    """An index of scenes at these places, as the tiling stage writes it, and the grid of each tile."""
    table = build_index(scenes=len(places), side=SIDE, size=TILE, stride=TILE, unlabelled=0)
    grids = {}
    for tile, scene, row, col in table[["tile", "scene", "row", "col"]].itertuples(index=False):
        crs, corner = places[int(scene[1:])]
        grids[tile] = Grid(crs, corner @ Affine.translation(col, row), TILE, TILE)
    known = [ground_columns(grids[tile]) | {"crs": grids[tile].crs} for tile in table["tile"]]
    return table.drop(columns="crs").join(pd.DataFrame(known)), grids


def share_ground(one, other, margin=0.0):
    """Whether the centre of a pixel of the first tile is in the other, widened by a margin in pixels."""
    columns, rows = (side.ravel() for side in np.meshgrid(np.arange(TILE) + 0.5, np.arange(TILE) + 0.5))
    x, y = transform(one.crs, other.crs, *(one.transform @ (columns, rows)))
    column, row = ~other.transform @ (np.array(x), np.array(y))
    inside = (np.abs(column - TILE / 2) < TILE / 2 + margin) & (np.abs(row - TILE / 2) < TILE / 2 + margin)
    return bool(inside.any())


def sharing(grids, some, others, margin=0.0):
    """Pairs of tiles that share ground; tiles of 320 metres whose centres are a kilometre apart cannot."""
    here, there = (np.array([centre(grids[tile]) for tile in tiles]) for tiles in (some, others))
    near = np.argwhere(np.linalg.norm(here[:, None] - there, axis=2) < 1000)
    pairs = [(some[i], others[j]) for i, j in near]
    return [(a, b) for a, b in pairs if share_ground(grids[a], grids[b], margin)]


def centre(grid):
    x, y = grid.transform @ (TILE / 2, TILE / 2)
    (east,), (north,) = transform(grid.crs, "EPSG:32633", [x], [y])
    return east, north


@pytest.mark.parametrize(
    "second",
    [at_the_border(), at_the_border(30), turned_in_its_zone()],
    ids=["two zones", "two zones, one turned", "one zone, one turned"],
)
@pytest.mark.parametrize("guard", [0, 12])
def test_no_pixel_of_a_test_tile_is_seen_in_training(index_at, tmp_path, second, guard):
    table, grids = build(UTM33, second)
    path, config = index_at(table), CONFIG.model_copy(update={"guard": guard})
    make_splits(path, config, tmp_path / "splits")
    train, val, test = (read_list(tmp_path / "splits" / f"{p}_RGB.txt") for p in ("train", "val", "test"))
    # one scene alone has room enough: without the other nothing would be lost to overlap
    assert sharing(grids, [t for t in grids if t[:2] == "s0"], [t for t in grids if t[:2] == "s1"])
    assert train and test
    # the straight gap counts; at the corners of a widened square it is longer
    margin = max(guard / np.sqrt(2) - 1, 0)
    for some, others in ((train, test), (train, val), (val, test)):
        assert sharing(grids, some, others, margin) == []
    assert verify(tmp_path / "splits", path, config) == []
    assert json.loads((tmp_path / "splits" / "manifest.json").read_text())["tiles_on_ground"] == len(table)


def test_verification_sees_ground_shared_between_zones(index_at, tmp_path):
    table, grids = build(UTM33, at_the_border())
    blind = index_at(table.drop(columns=["lon", "lat", "radius_metres"]), "blind.csv")
    make_splits(blind, CONFIG, tmp_path / "splits")
    train, test = (read_list(tmp_path / "splits" / f"{part}_RGB.txt") for part in ("train", "test"))
    assert sharing(grids, train, test)
    assert verify(tmp_path / "splits", blind) == []
    text = "\n".join(map(str, verify(tmp_path / "splits", index_at(table))))
    assert "train and test share pixels or are closer than 0 pixels" in text


@pytest.mark.parametrize("guard", [0, 5])
def test_circles_agree_with_comparing_all(index_at, guard):
    far = ("EPSG:32632", Affine(10, 0, 5e5, 0, -10, 4e6))
    table, _ = build(UTM33, at_the_border(), turned_in_its_zone(), far)
    index = read_index(index_at(table), CONFIG)
    circle, scene, crs = index.ground.circle, index.scene, index.ground.crs
    key = np.random.default_rng(0).integers(0, 3, len(table))
    i, j = np.triu_indices(len(table), 1)
    near = np.linalg.norm(circle[i, :3] - circle[j, :3], axis=1) < circle[i, 3] + circle[j, 3] + guard * 10
    wanted = near & (key[i] != key[j]) & (scene[i] != scene[j]) & ((crs[i] != crs[j]) | (crs[i] < 0))
    within = [tuple(pair) for pair in close_pairs(index, key, guard).tolist() if scene[pair[0]] == scene[pair[1]]]
    expected = sorted([*within, *zip(i[wanted].tolist(), j[wanted].tolist(), strict=True)])
    assert wanted.sum() > 100
    assert [tuple(pair) for pair in close_pairs(index, key, guard).tolist()] == expected


def test_scenes_of_one_zone_are_compared_by_their_windows_as_before(index_at, tmp_path):
    second = UTM33[0], UTM33[1] @ Affine.translation(47, 69)
    table, grids = build(UTM33, second)
    path = index_at(table)
    assert read_index(path, CONFIG).ground.circle is None
    make_splits(path, CONFIG, tmp_path / "circles")
    old = index_at(table.drop(columns=list(GROUND[5:])), "old.csv")
    make_splits(old, CONFIG, tmp_path / "old")
    for file in sorted((tmp_path / "old").glob("*.txt")):
        assert (tmp_path / "circles" / file.name).read_bytes() == file.read_bytes()
    train, test = (read_list(tmp_path / "old" / f"{part}_RGB.txt") for part in ("train", "test"))
    assert train and test and sharing(grids, train, test) == []


def test_turned_tiles_without_a_circle_are_compared_by_their_windows(index_at):
    table, _ = build(UTM33, turned_in_its_zone())
    path = index_at(table)
    turned = read_index(path, CONFIG).ground
    assert (turned.crs == -1).sum() == SIDE**2 and not turned.window[turned.crs == -1].any()
    for lost in (table.assign(lon="", lat=""), table.drop(columns="radius_metres")):
        ground = read_index(index_at(lost, "less.csv"), CONFIG).ground
        assert (ground.crs >= 0).all() and (ground.window[:, 2:] == TILE).all()
