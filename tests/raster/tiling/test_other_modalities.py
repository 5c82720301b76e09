"""A DEM and an L-band SAR image beside optical and SAR, from files to tiles."""

import csv

import numpy as np
import pytest
from affine import Affine
from scipy import ndimage

from tests.raster.conftest import UTM
from tests.splits.tile_indexes import write_hashes
from tmcnet.config import AlignConfig, SensorConfig, SensorsConfig, SourceConfig, TilesConfig
from tmcnet.dataset.seed_export import export_seed_layout
from tmcnet.errors import InputError
from tmcnet.raster.inventory.sources import find_entries
from tmcnet.raster.io.reader import read_float, read_grid
from tmcnet.raster.tiling.grid import align_scene
from tmcnet.store import TileStore

DEM = SensorConfig(bands=["elevation"], kind="elevation", nodata=-9999)
L_BAND = SensorConfig(bands=["hh"], kind="backscatter", scale="linear", clip_db=(-20, 5))
COARSE = Affine(30, 0, 499_900, 0, -30, 5_400_100)


@pytest.fixture
def three(source):
    """A source of two scenes with optical, SAR and a coarser DEM on another grid."""
    source.sensors = SensorsConfig({**source.sensors, "dem": DEM})
    source.source = source.source.model_copy(update={"dem": "{scene}_d.tif"})
    for number, name in enumerate("ab"):
        source.scene(name, seed=number)
        source.write(f"{name}_d.tif", hill(), transform=COARSE)
    return source


def hill(peak=(500_320, 5_399_680)):
    """A Gaussian hill of 100 m on a plain at 400 m, on the coarse grid; one pixel is no data."""
    rows, columns = np.mgrid[:30, :30] + 0.5
    east, north = COARSE @ (columns, rows)
    heights = 400 + 100 * np.exp(-((east - peak[0]) ** 2 + (north - peak[1]) ** 2) / 2 / 80**2)
    heights[4, 4] = -9999
    return heights.astype("f4")


def align(source, scene="a"):
    folder = source.root / "results" / "scenes" / scene
    align_scene(source.json, scene, source.sensors, source.labels, AlignConfig(enabled=False), folder)
    return folder


def cut(source, **changes):
    root = source.cut(TilesConfig(**{"size": 32, "stride": 32, "min_valid": 0.3, **changes}), threads=1)
    with (root / "index.csv").open() as file:
        return root, {row["tile"]: row for row in csv.DictReader(file)}


def test_a_hill_stays_where_it_is_from_scene_to_tile(three):
    record = three.take().record("a")
    assert record.images["dem"].files == [str(three.root / "a_d.tif")]
    assert record.images["dem"].overlap == 1 and len(record.digests) == 4
    with three.json.with_suffix(".csv").open() as file:
        row = next(csv.DictReader(file))
    assert (row["dem_gsd"], row["dem_nodata"], row["dem_scale"]) == ("30", "-9999", "none")
    folder = align(three)
    assert read_grid(folder / "dem.tif") == read_grid(folder / "optical.tif")
    heights = read_float(folder / "dem.tif")[0]
    row, column = ndimage.center_of_mass(np.nan_to_num(heights - 400).clip(min=0))
    found = 500_000 + 10 * (column + 0.5), 5_400_000 - 10 * (row + 0.5)
    assert found == pytest.approx((500_320, 5_399_680), abs=3)
    assert np.nanmax(heights) == pytest.approx(500, abs=5) and np.isnan(heights).any()
    align(three, "b")
    root, _ = cut(three, min_valid=0.0)
    tiles = [read_float(root / "dem" / f"a_r{r}_c{c}.tif")[0] for r in (0, 32) for c in (0, 32)]
    np.testing.assert_array_equal(np.block([tiles[:2], tiles[2:]]), heights)


def test_a_tile_is_valid_where_all_modalities_are_and_its_digest_knows_them(three):
    three.take()
    folders = [align(three, name) for name in "ab"]
    _, before = cut(three, min_valid=0.0)
    images = [read_float(folders[0] / f"{kind}.tif") for kind in ("optical", "sar", "dem")]
    valid = ~np.isnan(np.concatenate(images)).any(axis=0)
    assert float(before["a_r0_c0"]["valid_share"]) == pytest.approx(valid[:32, :32].mean(), abs=1e-6)
    assert 0 < valid[:32, :32].mean() < 1
    three.write("a_d.tif", hill() + 1, transform=COARSE)
    three.take()
    align(three, "a")
    _, after = cut(three, min_valid=0.0)
    changed = {name for name in before if before[name]["digest"] != after[name]["digest"]}
    assert changed == {name for name in before if name.startswith("a_")}


def test_virtual_tiles_have_all_modalities(three):
    three.take()
    for name in "ab":
        align(three, name)
    root, own = cut(three)
    kinds = ("optical", "sar", "dem")
    as_files = {(k, t): read_float(TileStore(root).path(k, t)) for t in own for k in kinds}
    _, virtual = cut(three, store="virtual")
    assert not list(root.rglob("*.tif"))
    assert len(own) == 8 and [row["digest"] for row in own.values()] == [row["digest"] for row in virtual.values()]
    store = TileStore(root)
    for (kind, tile), expected in as_files.items():
        np.testing.assert_array_equal(read_float(store.path(kind, tile), store.window(tile)), expected)
    for word in ("RGB", "SAR", "lbl"):
        lists = three.root / "results" / "splits"
        lists.mkdir(exist_ok=True)
        (lists / f"train_{word}.txt").write_text("".join(f"{tile}\n" for tile in own))
    write_hashes(lists)
    export_seed_layout(root, lists, three.root / "seed", ["dem"])
    for tile in own:
        exported = read_float(three.root / "seed" / "train_dem" / f"{tile}.tif")
        np.testing.assert_array_equal(exported, as_files["dem", tile])


def test_a_dem_may_come_as_a_mosaic_and_as_a_stack(three):
    dem = hill()
    three.sensors = SensorsConfig({**three.sensors, "dem": DEM.model_copy(update={"bands": ["elevation", "again"]})})
    for name, part, column in (("west", dem[:, :12], 0), ("east", dem[:, 12:], 12)):
        three.write(f"raw/T_{name}.tif", part, transform=COARSE @ Affine.translation(column, 0))
    path = three.root / "scenes.csv"
    row = "a,a_o.tif,a_s.tif,a_l.tif,train,raw/T_*.tif;a_d.tif"
    path.write_text(f"scene,optical,sar,label,role,dem\n{row}\n")
    three.source = SourceConfig(layout="scenes", sheet=str(path))
    (record,) = three.take().records
    assert len(record.images["dem"].files) == 2 and len(record.digests) == 6
    with three.json.with_suffix(".csv").open() as file:
        assert next(csv.DictReader(file))["dem_tiles"] == "2"
    mosaic, whole = read_float(align(three) / "dem.tif")
    np.testing.assert_array_equal(mosaic, whole)
    assert np.nanmax(whole) == pytest.approx(500, abs=5) and np.isnan(whole).any()
    assert not list((three.root / "results" / "scenes" / "a").glob(".work-*"))


def test_gaps_of_a_dem_mosaic_are_no_data(three):
    three.sensors = SensorsConfig({**three.sensors, "dem": DEM.model_copy(update={"nodata": None})})
    for name, part, column in (("west", hill()[:, :12], 0), ("east", hill()[:, 14:], 14)):
        place = COARSE @ Affine.translation(column, 0)
        three.write(f"raw/T_{name}.tif", part.astype("i2"), transform=place)
    path = three.root / "scenes.csv"
    path.write_text("scene,optical,sar,label,role,dem\na,a_o.tif,a_s.tif,a_l.tif,train,raw/T_*.tif\n")
    three.source = SourceConfig(layout="scenes", sheet=str(path))
    (record,) = three.take().records
    gap = np.isnan(record.images["dem"].raster.read_all()[0])
    assert gap[:, 12:14].all() and gap.sum() == 2 * len(gap)
    assert np.isnan(read_float(align(three) / "dem.tif")).any()


def test_a_changed_dem_is_noticed(three):
    three.take()
    for name in "ab":
        folder = align(three, name)
    (folder / "dem.tif").write_bytes(b"other")
    with pytest.raises(InputError, match=r"b/dem\.tif: was changed after alignment\.json"):
        cut(three)


def test_errors_in_a_dem_file_name_its_key(three):
    three.write("a_d.tif", np.stack([hill(), hill()]), transform=COARSE)
    three.write("b_d.tif", hill(), transform=Affine(30, 0, 900_000, 0, -30, 5_400_100))
    with pytest.raises(InputError) as caught:
        three.take()
    message = str(caught.value)
    assert "has 2 band(s), but `sensors.dem.bands` names 1: elevation" in message
    assert "b_d.tif: covers 0% of b_o.tif" in message and "Check that this is the dem of scene b" in message


def test_only_a_scene_of_role_predict_may_lack_a_modality(three):
    path = three.root / "scenes.csv"
    rows = ["scene,optical,sar,label,role,dem", "a,a_o.tif,a_s.tif,a_l.tif,train,a_d.tif"]
    path.write_text("\n".join([*rows, "b,b_o.tif,b_s.tif,,predict,"]) + "\n")
    three.source = SourceConfig(layout="scenes", sheet=str(path))
    inventory = three.take()
    assert inventory.record("a").fields == {} and inventory.record("b").images["dem"].files == []
    assert np.isnan(read_float(align(three, "b") / "dem.tif")).all()
    path.write_text("\n".join([*rows, "b,b_o.tif,b_s.tif,,train,"]) + "\n")
    with pytest.raises(InputError, match=r"line 3 \(b\): names no file in `dem`"):
        three.take()
    with pytest.raises(InputError, match=r"lacks the columns dsm; .* The columns are .*, dsm, label"):
        find_entries(three.source, three.root, ["optical", "sar", "dem", "dsm"])


def test_scenes_without_a_dem_file_are_named(three):
    (three.root / "b_d.tif").unlink()
    with pytest.raises(InputError, match=r"`source\.dem`: .* finds no dem file for 1 of 2: b"):
        three.take()


def test_backscatter_of_another_modality_is_averaged_in_power_and_clipped(source):
    source.sensors = SensorsConfig({**source.sensors, "l_band": L_BAND})
    source.source = source.source.model_copy(update={"l_band": "{scene}_l_band.tif"})
    source.scene("a")
    fine = np.where(np.indices((128, 128)).sum(0) % 2, 0.19, 0.01).astype("f4")
    fine[:, 64:] = 0
    source.write("a_l_band.tif", fine, transform=UTM[1] @ Affine.scale(0.5))
    source.take()
    decibels = read_float(align(source) / "l_band.tif")[0]
    np.testing.assert_allclose(decibels[5:-5, 5:27], -10, atol=1e-4)
    assert (decibels[:, 37:] == -20).all()


def test_ready_made_tiles_may_have_other_modalities(tile_source, write_png_tile):
    others = {"dem": SensorConfig(bands=["elevation"], kind="elevation"), "l_band": L_BAND}
    tile_source.sensors = SensorsConfig(**tile_source.sensors, **others)
    patterns = {"l_band": "{part}/p_{tile:d}.tif", "dem": "{part}/d_{tile:d}.tif"}
    tile_source.source = tile_source.source.model_copy(update=patterns)
    plain = {"crs": None, "transform": None}
    for number in (1, 2):
        write_png_tile(tile_source, "train", str(number), seed=number)
        tile_source.write(f"train/d_{number}.tif", np.full((32, 32), 500 + number, "i2"), **plain)
        tile_source.write(f"train/p_{number}.tif", np.full((32, 32), 0.1, "f4"), **plain)
    assert list(tile_source.take().records[0].images) == ["optical", "sar", "dem", "l_band"]
    root, _ = cut(tile_source)
    assert (read_float(root / "dem" / "train_2.tif") == 502).all()
    np.testing.assert_allclose(read_float(root / "l_band" / "train_2.tif"), -10, atol=1e-5)
    tile_source.write("train/d_2.tif", np.full((30, 32), 500, "i2"), **plain)
    with pytest.raises(InputError, match=r"differs in size from the other files: .*d_2\.tif 32 x 30"):
        tile_source.take()
