import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.splits.tile_indexes import build_given, build_index
from tmcnet.config import Budget, GivenConfig, SharesConfig, SplitsConfig
from tmcnet.errors import InputError
from tmcnet.splits.files import read_list
from tmcnet.splits.fractions import fraction_size
from tmcnet.splits.splits import make_splits, verify

QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BLOCKS = SplitsConfig(block_size=64, fractions=[5, 25, 100])


def split(path, config, folder=None):
    """Lists by name, and the manifest."""
    folder = folder or path.parent / "splits"
    make_splits(path, config, folder)
    lists = {}
    for file in folder.glob("*_RGB.txt"):
        lists[file.name.removesuffix("_RGB.txt")] = read_list(file)
    return lists, json.loads((folder / "manifest.json").read_text())


def gap(a, b):
    """Pixels between two tiles: Chebyshev distance of their windows, negative where they overlap."""
    return max(
        max(a[name], b[name]) - min(a[name] + a[size], b[name] + b[size])
        for name, size in (("row", "height"), ("col", "width"))
    )


@QUICK
@given(
    seed=st.integers(0, 10**6),
    scenes=st.integers(1, 5),
    stride=st.sampled_from([16, 24, 32]),
    guard=st.sampled_from([0, 1, 20]),
    unlabelled=st.sampled_from([0.0, 0.3]),
    method=st.sampled_from(["blocks", "scenes"]),
)
@example(seed=1, scenes=1, stride=16, guard=1, unlabelled=0.0, method="blocks")
def test_splits_of_any_index(seed, scenes, stride, guard, unlabelled, method):
    table = build_index(seed, scenes, 7, 32, stride, unlabelled=unlabelled)
    some = {"fractions": [3, 10, 50, 100], "points": [1, 20]}
    config = SplitsConfig(method=method, block_size=48, guard=guard, seed=seed, **some)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.csv"
        table.to_csv(path, index=False)
        if method == "scenes" and scenes < 3:
            with pytest.raises(InputError, match=rf"{scenes} scenes .* cannot be divided into 3 parts"):
                split(path, config)
            return
        try:
            lists, manifest = split(path, config)
        except InputError as error:
            # few small blocks may lose every tile of a part to their neighbours, but only where tiles come too close
            assert "lost to the guard band" in str(error)
            assert guard > 0 or stride < 32
            return
        assert verify(path.parent / "splits", path, config) == []
    rows = table.set_index("tile")
    parts = {part: lists[part] for part in ("train", "val", "test")}
    assert all(tiles == sorted(set(tiles)) for tiles in lists.values())
    assert sorted([t for tiles in parts.values() for t in tiles] + manifest["dropped"]) == sorted(table["tile"])
    assert (rows.loc[parts["val"] + parts["test"], "label_share"] > 0).all()
    for draw in (1, 2):
        chain = [lists[Budget("R", f).subset(draw)] for f in config.fractions]
        assert all(set(a) <= set(b) for a, b in zip(chain, [*chain[1:], parts["train"]], strict=True))
        assert chain[-1] == [t for t in parts["train"] if rows.loc[t, "label_share"] > 0]
        assert [len(c) for c in chain] == [fraction_size(len(chain[-1]), f) for f in config.fractions]
    records = rows.to_dict("index")
    named = [(part, records[t]) for part, tiles in parts.items() for t in tiles]
    for i, (part, tile) in enumerate(named):
        for other_part, other in named[:i]:
            if part != other_part and tile["scene"] == other["scene"]:
                assert gap(tile, other) >= guard
    areas = {p: area_of(rows.loc[tiles]) for p, tiles in parts.items()}
    whole = sum(areas.values())
    found = max(np.abs(a / a.sum() - whole / whole.sum()).max() for a in areas.values())
    assert manifest["deviation"] == pytest.approx(found, abs=2e-3)


def area_of(rows):
    shares = rows.filter(like="share_class").to_numpy()
    return (shares * (rows["label_share"] * rows["height"] * rows["width"]).to_numpy()[:, None]).sum(axis=0)


def test_sizes_and_classes_come_out_as_wanted(index_at):
    table = build_index(3, scenes=6, side=12, rare=(3, 6))
    _, manifest = split(
        index_at(table), BLOCKS.model_copy(update={"shares": SharesConfig(train=0.5, val=0.2, test=0.3)})
    )
    assert [manifest["parts"][p]["share"] for p in ("train", "val", "test")] == pytest.approx(
        [0.5, 0.2, 0.3], abs=0.02
    )
    assert manifest["deviation"] < 0.03
    for part in manifest["parts"].values():
        assert all(share > 0 for share in part["class_shares"].values())
    assert not [w for w in manifest["warnings"] if w.startswith(("train ", "val ", "test "))]


def test_sizes_come_out_as_wanted_in_spite_of_the_guard_band(index_at):
    config = SplitsConfig(block_size=128, guard=16, fractions=[100])
    _, manifest = split(index_at(build_index(3, scenes=6, side=16)), config)
    assert manifest["dropped_by_guard"] > 300
    assert manifest["size_deviation"] < 0.04


@pytest.mark.parametrize(
    ("seed", "scenes", "side", "stride", "block", "guard", "largest"),
    [
        (0, 1, 12, 32, 48, 40, 0.05),  # one search only: 0.17
        (0, 1, 12, 16, 96, 40, 0.05),  # 0.13
        (1, 2, 6, 16, 64, 0, 0.1),  # tiles lost for overlap alone: 0.13
        (1, 1, 6, 16, 48, 40, 0.4),  # one search only: a part without any tile
    ],
)
def test_parts_that_lose_more_get_larger_shares_in_a_second_search(
    index_at, seed, scenes, side, stride, block, guard, largest
):
    table = build_index(seed, scenes=scenes, side=side, stride=stride, unlabelled=0)
    config = SplitsConfig(block_size=block, guard=guard, fractions=[100])
    _, manifest = split(index_at(table), config)
    assert manifest["dropped_by_guard"] > 0
    assert manifest["size_deviation"] < largest


def test_groups_are_moved_until_the_shares_fit(index_at):
    manifest = split(index_at(build_index(5, scenes=5, side=10)), BLOCKS)[1]
    assert manifest["deviation"] + manifest["size_deviation"] < 0.01
    assert max(manifest["class_deviations"].values()) == manifest["deviation"]
    assert list(manifest["class_deviations"]) == list(manifest["parts"]["train"]["class_shares"])


def test_a_guard_band_that_swallows_random_parts_leaves_parts_in_strips(index_at):
    # one scene of 6 x 12 blocks: around any scattered block the band takes the whole block
    config = BLOCKS.model_copy(update={"guard": 40})
    table = build_index(2, scenes=1, side=24, unlabelled=0)
    _, manifest = split(index_at(table), config)
    assert manifest["dropped_by_guard"] < 0.45 * len(table)
    assert manifest["size_deviation"] < 0.05
    assert all(share > 0 for part in manifest["parts"].values() for share in part["class_shares"].values())


def test_blocks_in_metres(index_at, tmp_path):
    table = on_ground(build_index(scenes=2, side=8), pixel=10)
    config = BLOCKS.model_copy(update={"block_metres": 640.0, "block_size": 16})
    lists, manifest = split(index_at(table), config)
    assert manifest["config"]["block_size"] == manifest["autocorrelation"]["block_size"] == 64
    pixels = split(index_at(table, "b.csv"), BLOCKS, tmp_path / "pixels")
    assert pixels[0] == lists
    assert verify(tmp_path / "splits", tmp_path / "index.csv", config) == []
    message = "\n".join(map(str, verify(tmp_path / "splits", tmp_path / "index.csv", BLOCKS)))
    assert "`splits.block_metres` was 640.0, is None" in message and "block_size" not in message


def test_blocks_in_metres_need_one_known_pixel_size(index_at):
    config = BLOCKS.model_copy(update={"block_metres": 640.0})
    assert "does not give one pixel size in metres" in error_of(index_at(build_index()), config)
    table = on_ground(build_index(scenes=2), pixel=10)
    table.loc[table["scene"] == "s1", "pixel_metres"] *= 2
    assert "does not give one pixel size in metres" in error_of(index_at(table, "b.csv"), config)
    small = config.model_copy(update={"block_metres": 200.0})
    message = error_of(index_at(on_ground(build_index(), pixel=10), "c.csv"), small)
    assert "(200 m) is 20 pixels of 10 m, less than the 32 of a tile. Make it at least 320." in message


def test_the_pixel_size_of_ready_made_tiles_comes_from_their_columns(index_at):
    table = build_index(scenes=1, side=9)
    table = table.assign(scene=table["tile"], x=table["col"] * 0.001, y=table["row"] * -0.001, crs="EPSG:4326")
    table = table.assign(row=0, col=0, pixel_x=0.001, pixel_y=0.001, pixel_metres=100.0)
    manifest = split(index_at(table), BLOCKS.model_copy(update={"block_metres": 6400.0}))[1]
    assert manifest["config"]["block_size"] == 64
    assert manifest["tiles_on_ground"] == 81


def test_scenes_that_overlap_on_the_ground_share_no_ground_between_parts(index_at):
    table = on_ground(build_index(scenes=3, side=8, unlabelled=0), pixel=10)
    table.loc[table["scene"] == "s1", ["x", "y"]] = table.loc[table["scene"] == "s0", ["x", "y"]].to_numpy() + 35
    lists, manifest = split(index_at(table), BLOCKS)
    rows = table.set_index("tile")[["x", "y"]]
    assert manifest["dropped_by_guard"] > 0
    assert manifest["tiles_on_ground"] == len(table)
    for i, one in enumerate(("train", "val", "test")):
        for other in ("train", "val", "test")[i + 1 :]:
            apart = np.abs(rows.loc[lists[one]].to_numpy()[:, None] - rows.loc[lists[other]].to_numpy())
            assert (apart.max(axis=2) >= 320 - 5).all()


def on_ground(table, pixel, apart=1e5):
    """The table with centres of tiles in UTM; scenes lie far apart."""
    scene = table["scene"].str[1:].astype(int)
    x = 4e5 + scene * apart + (table["col"] + table["width"] / 2) * pixel
    y = 5e6 - (table["row"] + table["height"] / 2) * pixel
    return table.assign(x=x, y=y, pixel_x=pixel, pixel_y=pixel, pixel_metres=float(pixel))


@pytest.mark.parametrize(("block", "warned"), [(32, True), (512, False)])
def test_blocks_smaller_than_the_range_are_warned_of(index_at, block, warned, capfd):
    table = on_ground(smooth_index(24), pixel=10)
    manifest = split(index_at(table), BLOCKS.model_copy(update={"block_size": block}))[1]
    text = [w for w in manifest["warnings"] if "smaller than the distance over which labels are alike" in w]
    assert bool(text) == warned
    assert ("not independent" in capfd.readouterr().err) == warned
    found = manifest["autocorrelation"]
    assert found["block_size"] == block
    assert found["range_metres"] == pytest.approx(10 * found["range_pixels"], abs=10)


def smooth_index(side):
    """Two classes whose shares are waves of a length of 8 tiles; correlation falls to 1/e within a quarter of it."""
    table = build_index(scenes=4, side=side, classes=2, unlabelled=0)
    phase = table["scene"].str[1:].astype(int)
    wave = np.sin(2 * np.pi * (table["row"] / 256 + phase / 4)) * np.sin(2 * np.pi * table["col"] / 256)
    return table.assign(**{"share_class 0": 0.5 + 0.4 * wave, "share_class 1": 0.5 - 0.4 * wave})


def test_absent_class_is_reported(index_at):
    _, manifest = split(index_at(build_index(1, rare=(1,))), BLOCKS)
    absent = [w for w in manifest["warnings"] if w.endswith("has no pixel of class 4.")]
    assert {"val has no pixel of class 4.", "test has no pixel of class 4."} & set(absent)


def test_same_bytes_whatever_the_order_of_rows_the_hash_seed_and_the_working_folder(index_at, tmp_path):
    table = build_index(2, rare=(4,))
    path = index_at(table)
    config = BLOCKS.model_copy(update={"guard": 8, "points": [2, 500]})
    make_splits(path, config, tmp_path / "a")
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "shuffled.csv", index=False, float_format="%.6f")
    make_splits(tmp_path / "shuffled.csv", config, tmp_path / "b")
    code = (
        "import sys; from pathlib import Path; from tmcnet.config import SplitsConfig;"
        "from tmcnet.splits.splits import make_splits;"
        "make_splits(Path(sys.argv[1]), SplitsConfig.model_validate_json(sys.argv[2]), Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, str(path), config.model_dump_json(), str(tmp_path / "c")]
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).parents[2])}
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(command, check=True, env=environment, cwd=tmp_path / "elsewhere")
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    for other in ("b", "c"):
        assert sorted(p.name for p in (tmp_path / other).iterdir()) == files
        for name in files:
            assert (tmp_path / other / name).read_bytes() == (tmp_path / "a" / name).read_bytes(), name
    assert str(tmp_path) not in (tmp_path / "a" / "manifest.json").read_text()


def test_another_seed_gives_other_splits(index_at):
    path = index_at(build_index())
    assert split(path, BLOCKS)[0]["test"] != split(path, BLOCKS.model_copy(update={"seed": 2}))[0]["test"]


def test_lists_of_earlier_splits_are_removed(index_at, tmp_path):
    path = index_at(build_index())
    split(path, BLOCKS)
    (tmp_path / "splits" / "notes.txt").write_text("mine")
    split(path, BLOCKS.model_copy(update={"fractions": [50, 100]}))
    assert not (tmp_path / "splits" / "trainR5_SAR.txt").exists()
    assert (tmp_path / "splits" / "notes.txt").exists()
    assert verify(tmp_path / "splits", path) == []


def test_blocks_of_the_manifest_hold_the_tiles_they_say(index_at):
    table = build_index(unlabelled=0.2)
    lists, manifest = split(index_at(table), BLOCKS)
    rows = table.set_index("tile")
    for part, tiles in lists.items():
        for tile in tiles if part in ("train", "val", "test") else []:
            row, col = ((rows.loc[tile, name] + 16) // 64 * 64 for name in ("row", "col"))
            block = [
                b for b in manifest["blocks"] if (b["scene"], b["row"], b["col"]) == (tile.split("_")[0], row, col)
            ]
            assert [b["part"] for b in block] == [part]
    assert sum(b["tiles"] for b in manifest["blocks"]) == len(table) - len(manifest["dropped"])


def test_tiles_that_are_only_mapped_take_no_part(index_at):
    table = build_index(unlabelled=0)
    table.loc[table["scene"] == "s1", "role"] = "predict"
    lists, manifest = split(index_at(table), BLOCKS)
    assert not any(t.startswith("s1_") for tiles in lists.values() for t in tiles)
    assert manifest["dropped"] == []


def test_column_keeps_values_together(index_at):
    table = build_index(scenes=1, side=12)
    table["field_area"] = [f"area{i % 9}" for i in range(len(table))]
    table["row"] = table["col"] = 0
    lists, manifest = split(index_at(table), BLOCKS.model_copy(update={"method": "column", "column": "area"}))
    area = dict(zip(table["tile"], table["field_area"], strict=True))
    seen = [{area[t] for t in lists[part]} for part in ("train", "val", "test")]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert {g["group"]: g["part"] for g in manifest["groups"]}["area3"] in ("train", "val", "test")


GIVEN = SplitsConfig(method="given", fractions=[5, 20, 50, 100])


def test_given_parts_with_validation_drawn_from_train(index_at, tmp_path):
    path = index_at(build_given())
    lists, manifest = split(path, GIVEN)
    assert lists["test"] == [f"test_{i:04d}" for i in range(15)]
    assert sorted(lists["train"] + lists["val"]) == [f"train_{i:04d}" for i in range(60)]
    assert len(lists["val"]) == 15
    assert manifest["dropped"] == []
    assert verify(tmp_path / "splits", path, GIVEN) == []


@pytest.mark.parametrize("scene", ["", "all"])
def test_ready_made_tiles_of_one_scene_name_are_independent(index_at, scene):
    table = build_given()
    table["scene"] = scene
    assert len(split(index_at(table), GIVEN)[0]["val"]) == 15


def test_all_parts_given(index_at):
    config = GIVEN.model_copy(update={"given": GivenConfig(train=["train"], val=["val"], test=["test"])})
    table = build_given()
    table.loc[table["tile"].isin(["train_0002", "train_0031"]), "field_part"] = "val"
    assert split(index_at(table), config)[0]["val"] == ["train_0002", "train_0031"]


def test_given_fractions_are_taken_and_the_others_fitted_between(index_at, tmp_path):
    config = GIVEN.model_copy(update={"given_fractions": True, "fractions": [2, 5, 10, 20, 50, 100]})
    path = index_at(build_given())
    lists, manifest = split(path, config)
    r5, r20 = ([f"train_{i:04d}" for i in range(n)] for n in (3, 12))
    assert (lists["trainR5"], lists["trainR20"]) == (r5, r20)
    assert set(lists["trainR2"]) < set(r5) < set(lists["trainR10"]) < set(r20) < set(lists["trainR50"])
    assert lists["trainR5_s2"] != r5
    assert [name for name, entry in manifest["lists"].items() if entry.get("given")] == ["trainR5", "trainR20"]
    assert verify(tmp_path / "splits", path, config) == []


def test_given_fractions_that_are_not_nested_are_reported(index_at, tmp_path):
    table = build_given()
    table["field_subsets"] = ["R5" if i < 3 else "R20" if i < 12 else "" for i in range(len(table))]
    config = GIVEN.model_copy(update={"given_fractions": True})
    path = index_at(table)
    lists, manifest = split(path, config)
    assert lists["trainR20"] == [f"train_{i:04d}" for i in range(3, 12)]
    assert set(lists["trainR5"]) | set(lists["trainR20"]) <= set(lists["trainR50"])
    assert any("trainR5 and trainR20 are not nested: 3 tiles" in w for w in manifest["warnings"])
    assert verify(tmp_path / "splits", path, config) == []


def error_of(path, config):
    with pytest.raises(InputError) as caught:
        make_splits(path, config, path.parent / "splits")
    return str(caught.value)


def test_given_fraction_outside_train(index_at):
    table = build_given()
    table.loc[table["tile"] == "test_0003", "field_subsets"] = "R5"
    config = GIVEN.model_copy(update={"given_fractions": True})
    assert "trainR5 has tiles that are not in train: test_0003" in error_of(index_at(table), config)
    path = index_at(table.drop(columns="field_subsets"), "b.csv")
    assert "no column `field_subsets`" in error_of(path, config)


def test_given_values_must_belong_to_a_part(index_at):
    table = build_given()
    table.loc[3, "field_part"] = "validation"
    assert "values that belong to no part: validation" in error_of(index_at(table), GIVEN)
    twice = GIVEN.model_copy(
        update={"given": GivenConfig(train=["train", "validation"], val=["train"], test=["test"])}
    )
    assert "belong to another part as well" in error_of(index_at(table), twice)


def test_column_that_does_not_exist(index_at):
    message = error_of(index_at(build_given()), GIVEN.model_copy(update={"column": "area"}))
    assert "no column `field_area`" in message
    assert "it has ['part', 'subsets']" in message


def test_labels_of_one_class_teach_nothing(index_at):
    table = build_index()
    shares = [name for name in table if name.startswith("share_")]
    table[shares] = [1.0, *[0.0] * (len(shares) - 1)]
    message = error_of(index_at(table), BLOCKS)
    assert f"hold only {shares[0].removeprefix('share_')}: nothing can be learnt. Check the label files" in message


def test_a_part_that_would_be_empty(index_at):
    table = build_index(scenes=1, side=6)
    path = index_at(table)
    assert "1 blocks with labelled tiles cannot" in error_of(path, BLOCKS.model_copy(update={"block_size": 512}))
    message = error_of(path, BLOCKS.model_copy(update={"guard": 500}))
    assert "leaves no labelled tile in train and " in message
    assert "lost to the guard band of 500 pixels or for overlap; 9 blocks" in message
    assert "`splits.block_size`" in message


def test_all_mistakes_of_an_index_are_reported_at_once(index_at, tmp_path):
    table = build_index(unlabelled=0).astype({"row": object, "share_class 1": object})
    table.loc[0, "row"] = "x"
    table.loc[1, "label_share"] = np.nan
    table.loc[2, "share_class 1"] = ""
    table.loc[3, "share_class 2"] = 1.2
    message = error_of(index_at(pd.concat([table, table.iloc[[5]]])), BLOCKS)
    assert f"names tiles twice: {table.loc[5, 'tile']}" in message
    assert f"`row` is no proper whole number: {table.loc[0, 'tile']}" in message
    assert f"`label_share` is not between 0 and 1: {table.loc[1, 'tile']}" in message
    assert f"`share_class 1` is not between 0 and 1: {table.loc[2, 'tile']}" in message
    assert f"`share_class 2` is not between 0 and 1: {table.loc[3, 'tile']}" in message
    columns = error_of(index_at(table.drop(columns=["scene", "label_share"]), "b.csv"), BLOCKS)
    assert "no column `scene`" in columns and "no column `label_share`" in columns
    assert "none of its 144 tiles has a label" in error_of(index_at(build_index(unlabelled=1.1), "c.csv"), BLOCKS)
    assert "does not exist" in error_of(tmp_path / "nowhere.csv", BLOCKS)


def test_export_of_own_splits_reads_back(index_at, tmp_path):
    from tmcnet.classes import ClassTable
    from tmcnet.dataset.seed_export import export_seed_layout
    from tmcnet.raster.inventory.seed_layout import read_seed_layout

    table = build_index(scenes=3, side=4)
    lists, _ = split(index_at(table), BLOCKS)
    for kind in ("optical", "sar", "label"):
        (tmp_path / kind).mkdir()
        for tile in table["tile"]:
            shutil.copyfile(tmp_path / "index.csv", tmp_path / kind / f"{tile}.tif")
    ClassTable.of([(f"class {k}", f"#00000{k}") for k in range(4)]).write(tmp_path / "classes.csv")
    export_seed_layout(tmp_path, tmp_path / "splits", tmp_path / "seed")
    tiles = read_seed_layout(tmp_path / "seed").tiles
    for part in ("train", "val", "test"):
        assert [t.scene for t in tiles if t.fields["part"] == part] == lists[part]
    for subset in ("R5", "R5_s2", "R25", "R100"):
        assert [t.scene for t in tiles if subset in t.fields["subsets"].split(";")] == lists[f"train{subset}"]
