import csv
import itertools
import json
import pickle
import shutil

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from tmcnet.config import NormaliseConfig, SensorConfig, SensorsConfig, SourceConfig, SplitsConfig, TilesConfig
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Band, Normalisation, compute_normalisation
from tmcnet.dataset.seed_export import export_seed_layout
from tmcnet.errors import InputError
from tmcnet.raster.io.reader import read_float, read_grid, read_labels
from tmcnet.raster.register.alignment import Alignment
from tmcnet.raster.tiling.tiles import cut_tiles, offsets, resolve_store
from tmcnet.raster.tiling.unchanged import require_same_settings, scene_digests
from tmcnet.splits.splits import make_splits
from tmcnet.store import TileStore


def cut(source, threads=2, **config) -> list[dict[str, str]]:
    root = source.cut(TilesConfig(**({"size": 32, "stride": 32, "min_valid": 0.1} | config)), threads=threads)
    with (root / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def record(folder, status="aligned", rmse=0.41) -> None:
    content = {"status": status, "rmse_px": rmse, "digests": scene_digests(folder, ("optical", "sar"))}
    (folder / "alignment.json").write_text(json.dumps(content))


def scenes(source, *names: str, **options) -> None:
    """Write scenes that are on one grid already to the files that `align_scene` would write."""
    for seed, name in enumerate(names):
        source.scene(name, seed=seed, **options)
    source.take()
    for name in names:
        folder = source.json.parent / "scenes" / name
        folder.mkdir(parents=True)
        for kind in ("optical", "sar"):
            shutil.copy(source.root / f"{name}_{kind[0]}.tif", folder / f"{kind}.tif")
        codes = np.array([255, 0, 1, 1], "u1")
        with rasterio.open(source.root / f"{name}_l.tif") as dataset:
            ids = codes[dataset.read()]
        source.write(f"results/scenes/{name}/label.tif", ids, nodata=255)
        record(folder)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 90), st.integers(1, 90), st.sampled_from(["pad", "shift", "drop"]))
def test_tiles_cover_a_side_without_gaps_or_surplus(length, size, stride, edge):
    stride = min(stride, size)
    found = offsets(length, size, stride, edge)
    covered = {x for start in found for x in range(start, start + size)}
    assert found == sorted(set(found)) and found[0] == 0
    if length <= size:
        assert found == [0]
    elif edge == "drop":
        assert max(covered) < length and length - max(covered) <= stride
    else:
        assert covered >= set(range(length))
        assert edge == "pad" or max(covered) == length - 1
        assert all(b - a <= stride for a, b in itertools.pairwise(found))


def test_tiles_are_windows_of_the_scene(source):
    scenes(source, "a", size=70)
    rows = cut(source, edge="shift")
    assert [r["tile"] for r in rows] == sorted(f"a_r{y}_c{x}" for y in (0, 32, 38) for x in (0, 32, 38))
    store, folder = TileStore(source.json.parent / "tiles"), source.json.parent / "scenes" / "a"
    for row in rows:
        top, left = int(row["row"]), int(row["col"])
        assert (row["height"], row["width"]) == ("32", "32")
        here = np.s_[..., top : top + 32, left : left + 32]
        for kind in ("optical", "sar"):
            expected = read_float(folder / f"{kind}.tif")[here]
            np.testing.assert_array_equal(read_float(store.path(kind, row["tile"])), expected)
        label = read_labels(store.path("label", row["tile"]))
        np.testing.assert_array_equal(label, read_labels(folder / "label.tif")[here])
        grid = read_grid(store.path("optical", row["tile"]))
        assert (
            grid.transform @ (16, 16)
            == (float(row["x"]), float(row["y"]))
            == (500_000 + (left + 16) * 10, 5_400_000 - (top + 16) * 10)
        )
        assert float(row["label_share"]) == pytest.approx((label < 255).mean(), abs=1e-6)
        assert float(row["share_land"]) == pytest.approx((label == 1).sum() / (label < 255).sum(), abs=1e-6)
        assert row["alignment"] == "0.410000" and row["field_scene"] == "a" and row["crs"] == "EPSG:32633"
    with rasterio.open(store.path("optical", rows[0]["tile"])) as dataset:
        assert dataset.dtypes == ("uint16", "uint16") and dataset.nodata == 0
    assert store.classes.names == ["water", "land"]


def test_padding_is_no_data_in_images_and_label(source):
    scenes(source, "a", size=40)
    rows = {r["tile"]: r for r in cut(source, edge="pad", min_valid=0.0)}
    store = TileStore(source.json.parent / "tiles")
    assert set(rows) == {"a_r0_c0", "a_r0_c32", "a_r32_c0", "a_r32_c32"}
    assert float(rows["a_r32_c32"]["valid_share"]) == 64 / 1024
    for kind in ("optical", "sar"):
        assert np.isnan(read_float(store.path(kind, "a_r32_c0"))).all(axis=0).sum() == 1024 - 8 * 32
    assert (read_labels(store.path("label", "a_r32_c0"))[8:] == 255).all()


def test_a_scene_smaller_than_a_tile_is_padded_for_any_edge(source):
    scenes(source, "a", size=20)
    (row,) = cut(source, edge="drop")
    assert float(row["valid_share"]) == pytest.approx(400 / 1024, abs=1e-6)


def test_tiles_below_min_valid_are_dropped_and_none_left_is_an_error(source):
    scenes(source, "a", size=64)
    sar = read_float(source.root / "a_s.tif")
    sar[:, :, :40] = np.nan
    record(source.write("results/scenes/a/sar.tif", sar).parent)
    assert [r["tile"] for r in cut(source, min_valid=0.7)] == ["a_r0_c32", "a_r32_c32"]
    with pytest.raises(
        InputError, match=r"`tiles.min_valid`: \(0\.9\) is reached by no tile: the best of 4 has 0\.75"
    ):
        cut(source, min_valid=0.9)


def test_a_pixel_is_valid_where_every_band_of_all_modalities_is(source):
    scenes(source, "a", size=32)
    optical = np.ones((2, 32, 32), "u2")
    optical[0, :4] = 0
    optical[1, 4:8] = 0
    record(source.write("results/scenes/a/optical.tif", optical, nodata=0).parent)
    assert float(cut(source)[0]["valid_share"]) == 0.75


@pytest.mark.parametrize("kind", ["optical", "sar", "label"])
def test_changed_pixels_change_the_digest_of_their_tile_alone(source, kind):
    scenes(source, "a")
    first = {r["tile"]: r for r in cut(source)}
    path = source.json.parent / "scenes" / "a" / f"{kind}.tif"
    with rasterio.open(path, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, 32:, 32:] = pixels[:, :31:-1, 32:]  # upside down: shares of classes and of valid pixels stay
        dataset.write(pixels)
    record(path.parent)
    second = {r["tile"]: r for r in cut(source)}
    changed = [(tile, key) for tile in first for key in first[tile] if first[tile][key] != second[tile][key]]
    assert changed == [("a_r32_c32", "digest")]


def test_rasters_that_are_not_those_of_the_record_stop_before_anything_is_removed(source):
    scenes(source, "a", "b")
    cut(source)
    folder = source.json.parent / "scenes"
    (folder / "a" / "optical.tif").unlink()
    source.write("results/scenes/b/label.tif", np.zeros((64, 64), "u1"))
    before = sorted(source.json.parent.rglob("*.tif"))
    with pytest.raises(InputError) as caught:
        cut(source)
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        (str(folder / "a" / "optical.tif"), "does not exist"),
        (str(folder / "b" / "label.tif"), "was changed after alignment.json was written"),
    ]
    assert "run `snakemake alignment`" in str(caught.value)
    assert sorted(source.json.parent.rglob("*.tif")) == before


def test_tiles_of_an_earlier_run_are_removed(source):
    scenes(source, "a")
    cut(source)
    tiles = source.json.parent / "tiles"
    stranger = tiles / "notes.txt"
    stranger.write_text("mine")
    cut(source, size=64, stride=64)
    assert [p.name for p in (tiles / "sar").iterdir()] == ["a_r0_c0.tif"] and stranger.exists()


def test_only_scenes_for_training_are_cut_and_those_without_label_are_void(source):
    for name in "abc":
        source.scene(name, label=name == "a")
    text = "scene,optical,sar,label,role\n" + "".join(
        f"{n},{n}_o.tif,{n}_s.tif,{'a_l.tif' if n == 'a' else ''},{role}\n"
        for n, role in (("a", "train"), ("b", "train"), ("c", "predict"))
    )
    (source.root / "scenes.csv").write_text(text)
    source.source = SourceConfig(layout="scenes", sheet=str(source.root / "scenes.csv"))
    source.take()
    for name in "ab":
        folder = source.json.parent / "scenes" / name
        folder.mkdir(parents=True)
        shutil.copy(source.root / f"{name}_o.tif", folder / "optical.tif")
        shutil.copy(source.root / f"{name}_s.tif", folder / "sar.tif")
        source.write(
            f"results/scenes/{name}/label.tif", np.full((64, 64), 0 if name == "a" else 255, "u1"), nodata=255
        )
        record(folder, "rejected", None)
    rows = cut(source, size=64, stride=64)
    assert [(r["scene"], r["label_share"], r["share_water"], r["alignment"]) for r in rows] == [
        ("a", "1.000000", "1.000000", ""),
        ("b", "0.000000", "0.000000", ""),
    ]


def test_the_index_has_the_residual_of_registration_of_each_tile(source):
    scenes(source, "a", size=400)
    path = source.json.parent / "scenes" / "a" / "alignment.json"
    points = [[x, y, 1.0 + (x > 200), 0.0, 1] for x in range(20, 400, 40) for y in range(20, 140, 40)]
    found = Alignment("aligned", "", points, 0.5, "shift", [[1, 0, 1], [0, 1, 0]])
    path.write_text(json.dumps(json.loads(path.read_text()) | found.to_dict()))
    rows = {row["tile"]: row for row in cut(source)}
    assert [rows[f"a_r0_c{x}"]["alignment_px"] for x in (0, 192, 368)] == ["0.000", "0.756", "1.000"]
    assert [rows[f"a_r368_c{x}"]["alignment_px"] for x in (0, 192, 368)] == ["", "", ""]
    assert {row["alignment"] for row in rows.values()} == {"0.500000"}


def test_the_index_marks_tiles_of_a_rotated_scene(source):
    turned = Affine.translation(5e5, 5.4e6) @ Affine.rotation(30) @ Affine.scale(10, -10)
    scenes(source, "a", transform=turned)
    (row, *_) = cut(source)
    assert (row["north_up"], row["pixel_x"], row["pixel_metres"]) == ("0", "10", "10.000000")
    assert (float(row["x"]), float(row["y"])) == pytest.approx(turned @ (16, 16))
    assert float(row["radius_metres"]) == pytest.approx(10 * np.hypot(16, 16) / 0.9996, abs=0.02)


def test_ready_made_tiles_keep_their_size_and_are_decoded(tile_source, write_png_tile):
    write_png_tile(tile_source, "train", "01")
    write_png_tile(tile_source, "test", "1", size=48, seed=1)
    png = {"driver": "PNG", "crs": None, "transform": None}
    image = np.full((3, 32, 32), 5, "u1")
    image[:, :8] = 0
    image[0, 8:] = 0
    tile_source.write("train/o_01.png", image, **png)
    tile_source.take()
    test, train = cut(tile_source)
    assert (train["tile"], train["field_part"], train["field_tile"]) == ("train_1", "train", "1")
    assert (test["height"], test["width"], test["crs"], test["x"]) == ("48", "48", "", "")
    # a dark red band alone is no missing pixel
    assert float(train["valid_share"]) == 0.75
    store = TileStore(tile_source.json.parent / "tiles")
    with rasterio.open(tile_source.root / "train/l_01.png") as dataset:
        np.testing.assert_array_equal(read_labels(store.path("label", "train_1")), dataset.read(1) // 255)
    assert read_float(store.path("sar", "train_1")).max() > 200


def test_backscatter_of_ready_made_tiles_becomes_decibels(tile_source, write_png_tile):
    write_png_tile(tile_source, "train", "1")
    power = np.full((1, 32, 32), 0.01, "f4")
    power[0, 0, :3] = 0, 1000, np.nan
    tile_source.write("train/s_1.png", power, driver="GTiff", crs=None, transform=None)
    tile_source.sensors = SensorsConfig(
        optical=tile_source.sensors["optical"],
        sar=SensorConfig(bands=["vv"], kind="backscatter", scale="auto", clip_db=(-30, 5)),
    )
    tile_source.take()
    cut(tile_source)
    found = read_float(TileStore(tile_source.json.parent / "tiles").path("sar", "train_1"))[0]
    assert found[1, 1] == pytest.approx(-20) and found[0, :2].tolist() == [-30, 5] and np.isnan(found[0, 2])


def test_tiles_are_compressed_without_loss(source):
    scenes(source, "a")
    rows = cut(source)
    results = source.json.parent
    for kind in ("optical", "sar", "label"):
        with rasterio.open(results / "tiles" / kind / f"{rows[0]['tile']}.tif") as tile:
            assert tile.profile["compress"] == "zstd"
            found = tile.read()
        with rasterio.open(results / "scenes" / "a" / f"{kind}.tif") as scene:
            row, column = int(rows[0]["row"]), int(rows[0]["col"])
            np.testing.assert_array_equal(found, scene.read(window=((row, row + 32), (column, column + 32))))


def test_any_number_of_threads_gives_the_same_bytes(source):
    scenes(source, "a", "b", size=70)
    tiles = source.json.parent / "tiles"
    found = []
    for threads in (1, 4):
        cut(source, threads)
        found.append({p.relative_to(tiles): p.read_bytes() for p in sorted(tiles.rglob("*.*"))})
    assert found[0] == found[1] and len(found[0]) == 18 * 3 + 4


SPLITS = SplitsConfig(block_size=32, fractions=[50.0], points=[3], subsets=1)


def as_data(source, store: str, **options) -> dict[str, object]:
    """All that is made of tiles: the index, the splits, the normalisation, the tiles as tensors and the export."""
    results = source.json.parent
    rows = cut(source, store=store, **options)
    splits, tiles = results / "splits", TileStore(results / "tiles")
    make_splits(tiles.index, SPLITS, splits)
    made: dict[str, object] = {path.name: path.read_bytes() for path in sorted(splits.glob("*.txt"))}
    scaling = results / "normalisation.json"
    compute_normalisation(tiles.root, splits, source.sensors, NormaliseConfig(), scaling)
    made["normalisation"] = scaling.read_bytes()
    names = [row["tile"] for row in rows]
    read = TileDataset(tiles, names, Normalisation.read(scaling), with_labels=True, cache_gib=0)
    # a worker process gets the data set pickled
    made["tensors"] = [
        [t.numpy().tobytes() for t in (*tile.images.values(), tile.label)]
        for tile in pickle.loads(pickle.dumps(read))
    ]
    out = results / f"export_{store}"
    export_seed_layout(tiles.root, splits, out)
    made["export"] = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.*"))}
    made["rasters"] = {row.pop("rasters") for row in rows}
    made["index"] = rows
    return made


@pytest.mark.parametrize("options", [{}, {"edge": "pad", "stride": 20}])
def test_virtual_tiles_equal_tiles_with_their_own_files(source, options):
    scenes(source, "a", "b", size=80)
    for name in "ab":
        folder = source.json.parent / "scenes" / name
        for kind, bands in (("optical", source.sensors["optical"].bands), ("sar", source.sensors["sar"].bands)):
            # as `align_scene` writes them
            with rasterio.open(folder / f"{kind}.tif", "r+") as dataset:
                dataset.descriptions = bands
                dataset.nodata = np.nan if kind == "sar" else 0
        record(folder)
    own, virtual = as_data(source, "files", **options), as_data(source, "virtual", **options)
    assert (own.pop("rasters"), virtual.pop("rasters")) == ({""}, {"../scenes/a", "../scenes/b"})
    assert own.keys() == virtual.keys() and len(own["export"]) > 3 * 9
    assert [key for key in own if own[key] != virtual[key]] == []
    assert not list((source.json.parent / "tiles").rglob("*.tif"))


def test_tiles_with_and_without_files_are_read_from_one_index(source):
    scenes(source, "a", "b", size=80)
    virtual = {row["tile"]: row for row in cut(source, store="virtual")}
    own = cut(source, store="files")
    root = source.json.parent / "tiles"
    bands = {"optical": (Band("red", 0, 1, 0, 1), Band("nir", 0, 1, 0, 1)), "sar": (Band("vv", 0, 1, 0, 1),)}
    scaling = Normalisation(bands, clip=1, n_tiles=1)
    names = [row["tile"] for row in own]
    expected = list(TileDataset(TileStore(root), names, scaling, with_labels=True, cache_gib=0))
    rows = [virtual[row["tile"]] if row["scene"] == "b" else row for row in own]
    for path in root.glob("*/b_*.tif"):
        path.unlink()
    with (root / "index.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    mixed = list(TileDataset(TileStore(root), names, scaling, with_labels=True, cache_gib=0))
    for one, other in zip(mixed, expected, strict=True):
        assert one.name == other.name
        assert all((one.images[name] == other.images[name]).all() for name in bands)
        assert (one.truth == other.truth).all()


def test_many_tiles_are_virtual(source, monkeypatch):
    scenes(source, "a", "b", size=80)
    auto = TilesConfig(size=32, stride=32)
    assert auto.store == "auto"
    assert resolve_store(auto, source.json).store == "files"
    monkeypatch.setattr("tmcnet.raster.tiling.tiles.MAX_TILES_WITH_FILES", 2 * 9 - 1)
    assert resolve_store(auto, source.json).store == "virtual"
    given = auto.model_copy(update={"store": "files"})
    assert resolve_store(given, source.json).store == "files"


def test_missing_rasters_of_virtual_tiles_are_reported(source):
    scenes(source, "a")
    names = [row["tile"] for row in cut(source, store="virtual")]
    (source.json.parent / "scenes" / "a" / "sar.tif").unlink()
    bands = {"optical": (Band("red", 0, 1, 0, 1), Band("nir", 0, 1, 0, 1)), "sar": (Band("vv", 0, 1, 0, 1),)}
    store = TileStore(source.json.parent / "tiles")
    with pytest.raises(InputError) as caught:
        TileDataset(store, names, Normalisation(bands, clip=1, n_tiles=1), with_labels=True, cache_gib=0)
    assert len(caught.value.problems) == 1 and "Run `snakemake alignment`" in str(caught.value)


def test_changed_rasters_of_virtual_tiles_are_refused(source):
    scenes(source, "a")
    names = [row["tile"] for row in cut(source, store="virtual")]
    bands = {"optical": (Band("red", 0, 1, 0, 1), Band("nir", 0, 1, 0, 1)), "sar": (Band("vv", 0, 1, 0, 1),)}
    scaling = Normalisation(bands, clip=1, n_tiles=1)
    raster = source.json.parent / "scenes" / "a" / "sar.tif"
    content = raster.read_bytes()

    def read():
        store = TileStore(source.json.parent / "tiles")
        return TileDataset(store, names, scaling, with_labels=True, cache_gib=0)[0].images["sar"]

    before = read()
    raster.write_bytes(content)
    assert (read() == before).all()
    with rasterio.open(raster, "r+") as file:
        file.write(file.read()[:, ::-1])
    with pytest.raises(InputError, match=r"sar\.tif: was changed after alignment\.json was written"):
        read()


def test_ready_made_tiles_cannot_be_virtual(tile_source, write_png_tile):
    write_png_tile(tile_source, "train", "1")
    tile_source.take()
    with pytest.raises(InputError, match=r"`tiles\.store`: is `virtual`, but layout `tiles` has ready-made tiles"):
        cut(tile_source, store="virtual")


def test_strips_of_any_width_give_the_same_tiles(source, monkeypatch):
    scenes(source, "a", size=90)
    tiles = source.json.parent / "tiles"
    found = []
    for pixels in (1, 3000, 10**6):
        monkeypatch.setattr("tmcnet.raster.tiling.tiles._MAX_STRIP_PIXELS", pixels)
        cut(source, edge="pad", stride=20, min_valid=0)
        found.append({p.relative_to(tiles): p.read_bytes() for p in sorted(tiles.rglob("*.*"))})
    assert found[0] == found[1] == found[2] and len(found[0]) == 16 * 3 + 4


def test_scenes_made_with_different_settings_are_not_mixed(tmp_path):
    """As Snakemake leaves them if settings change in the run in which a scene is new."""
    paths = [tmp_path / f"{name}.json" for name in "abc"]
    for path, content in zip(paths, ({"settings": "1"}, {}, {"settings": "1"}), strict=True):
        path.write_text(json.dumps(content))
    require_same_settings(paths)
    paths[0].write_text(json.dumps({"settings": "2"}))
    with pytest.raises(InputError, match=r"c\.json: was made with other settings than .*a\.json.*again"):
        require_same_settings(paths)


def test_settings_of_tiles_are_those_of_the_alignment_too(source):
    source.scene("a")
    scenes(source, "a")
    found = []
    for of_scene, of_tiles in (("1", "1"), ("2", "1"), ("1", "2"), (None, "1")):
        path = source.json.parent / "scenes" / "a" / "alignment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": of_scene}))
        table = source.json.parent / "tiles" / "index" / "a.csv"
        tiles = TilesConfig(size=32, stride=32, min_valid=0.1)
        cut_tiles(source.json, path.parents[1], source.sensors, source.labels, tiles, table, 1, of_tiles)
        found.append(json.loads(table.with_suffix(".json").read_text()).get("settings"))
    assert found[3] is None
    assert len(set(found)) == 4
