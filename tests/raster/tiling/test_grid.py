import json
import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rasterio.warp import transform

from benchmarks import large_pairs
from tmcnet.config import AlignConfig, LabelsConfig, SensorConfig, SensorsConfig, SourceConfig, TilesConfig
from tmcnet.errors import InputError
from tmcnet.hashing import file_digest
from tmcnet.raster.io import blocks
from tmcnet.raster.io.reader import read_float, read_grid, read_labels
from tmcnet.raster.register.alignment import Alignment, on_lattice
from tmcnet.raster.tiling import grid, warp
from tmcnet.raster.tiling.grid import align_scene
from tmcnet.raster.tiling.unchanged import require_scenes

pytestmark = pytest.mark.usefixtures("no_pictures")

OFF = AlignConfig(enabled=False)


def align(source, scene="a", config=OFF):
    source.take()
    folder = source.root / "results" / "scenes" / scene
    align_scene(source.json, scene, source.sensors, source.labels, config, folder)
    return folder


def spot(shape, column, row, width):
    """A bright spot whose centre is at (column, row), counted from the outer corner of the first pixel."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * width**2))


def centre(weights):
    """Centre of mass as (column, row), counted from the outer corner of the first pixel."""
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


SIZE = 120
PLACES = {
    "EPSG:32633": (500_000, 5_400_000, 10.0),
    "EPSG:3035": (4_600_000, 2_870_000, 10.0),
    "EPSG:4326": (15.0, 48.75, 0.0001),
    "EPSG:3857": (1_669_792, 6_230_000, 15.0),
}


def plant(source, name, crs, unit, point, spread, label=False):
    """A raster of about 1.8 km around a point in EPSG:32633, with a spot on it."""
    (x,), (y,) = transform("EPSG:32633", crs, [point[0]], [point[1]])
    # the corner is a fraction of a pixel off any round number
    side = round(1800 / {"EPSG:4326": 111_000 * 0.75}.get(crs, 1.0) / unit)
    corner = Affine(unit, 0, x - unit * (side / 2 + 0.3), 0, -unit, y + unit * (side / 2 - 0.4))
    column, row = ~corner @ (x, y)
    scale = unit * (111_000 if crs == "EPSG:4326" else 1) / 10
    image = spot((side, side), column, row, spread / scale)
    if label:
        source.write(name, np.where(image > 0.5, 1, 2).astype("u1"), crs, corner)
    else:
        source.write(name, (0.01 + image).astype("f4"), crs, corner)


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # looking for a simpler failing case takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sar_crs=st.sampled_from(sorted(PLACES)),
    label_crs=st.sampled_from(sorted(PLACES)),
    sar_factor=st.sampled_from([0.5, 1.0, 1.7, 3.0]),
    label_factor=st.sampled_from([1.0, 1.5]),
    resolution=st.sampled_from([None, 10.0, 20.0, 13.0]),
    offset=st.tuples(st.floats(-200, 200), st.floats(-200, 200)),
)
def test_a_landmark_stays_within_half_a_pixel_from_scene_to_tile(
    source, sar_crs, label_crs, sar_factor, label_factor, resolution, offset
):
    point = (500_600 + offset[0], 5_399_400 + offset[1])
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["b"], kind="reflectance"), sar=SensorConfig(bands=["dem"], kind="elevation")
    )
    column, row = ~Affine(10, 0, 500_000, 0, -10, 5_400_000) @ point
    source.write("a_o.tif", (0.01 + spot((SIZE, SIZE), column, row, 4)).astype("f4"))
    plant(source, "a_s.tif", sar_crs, PLACES[sar_crs][2] * sar_factor, point, 4)
    plant(source, "a_l.tif", label_crs, PLACES[label_crs][2] * label_factor, point, 10, label=True)
    align(source, config=AlignConfig(enabled=False, resolution=resolution))
    tiles = source.cut(TilesConfig(size=SIZE, stride=SIZE, edge="pad", min_valid=0.0), threads=1)
    size = read_grid(tiles / "optical" / "a_r0_c0.tif")
    expected = np.array(~size.transform @ point)
    optical = np.nan_to_num(read_float(tiles / "optical" / "a_r0_c0.tif")[0] - 0.01)
    sar = np.nan_to_num(read_float(tiles / "sar" / "a_r0_c0.tif")[0] - 0.01)
    label = read_labels(tiles / "label" / "a_r0_c0.tif") == 0
    for found in (optical, sar):
        assert np.hypot(*(centre(found.clip(min=0)) - expected)) < 0.2
    # the nearest label may be half a pixel off in each direction
    assert np.abs(centre(label) - expected).max() < 0.55


def test_an_accepted_correction_puts_the_landmark_in_place_in_one_resampling(source, monkeypatch):
    matrix = [[0.995, -0.03, 6.2], [0.03, 0.995, -4.7]]
    source.scene("a", size=SIZE, label=False)
    place = np.array([70.0, 40.0])  # pixel centres at whole numbers
    lies_at = np.array(matrix)[:, :2] @ place + np.array(matrix)[:, 2]
    values = 0.01 + spot((SIZE, SIZE), *(lies_at + 0.5), 3)
    source.write("a_s.tif", values.astype("f4"))
    source.source = SourceConfig(layout="scenes", optical="{scene}_o.tif", sar="{scene}_s.tif")
    found = Alignment("aligned", "planted", [], 0.4, "affine", matrix)
    monkeypatch.setattr(grid, "estimate", lambda *_: found)
    calls = []
    real = grid.warp_to_grid

    def warped(draft, *rest):
        calls.append(float(np.nansum(read_float(draft.path))))
        return real(draft, *rest)

    monkeypatch.setattr(grid, "warp_to_grid", warped)
    folder = align(source, config=AlignConfig())
    power = 10 ** (read_float(folder / "sar.tif")[0] / 10)
    assert np.hypot(*(centre(np.nan_to_num(power - 0.01).clip(min=0.002) - 0.002) - 0.5 - place)) < 0.1
    # both times the delivered image, not the result of the first warp
    assert calls == [pytest.approx(float(values.sum()), rel=1e-5)] * 2
    record = json.loads((folder / "alignment.json").read_text())
    assert record["status"] == "aligned" and record["rmse_px"] == 0.4 and record["matrix"][0][2] == 6.2


def test_a_bending_correction_puts_the_landmark_in_place_from_another_crs(source, monkeypatch):
    def bend(points):
        x, y = 2 * np.pi * points.T / SIZE
        return points + np.stack([4 * np.sin(x) * np.cos(y) + 3, 4 * np.cos(x + y)], axis=1)

    place = np.array([70.0, 40.0])
    lies_at = bend(place[None])[0]
    source.scene("a", size=SIZE, label=False)
    delivered = Affine(10, 0, 500_000, 0, -10, 5_400_000) @ (lies_at[0] + 0.5, lies_at[1] + 0.5)
    plant(source, "a_s.tif", "EPSG:3035", 8.0, delivered, 3)
    source.source = SourceConfig(layout="scenes", optical="{scene}_o.tif", sar="{scene}_s.tif")
    nodes = on_lattice(bend, (SIZE, SIZE)).tolist()
    found = Alignment("aligned", "planted", [], 0.4, "thin_plate", None, nodes)
    monkeypatch.setattr(grid, "estimate", lambda *_: found)
    folder = align(source, config=AlignConfig())
    power = np.nan_to_num(10 ** (read_float(folder / "sar.tif")[0] / 10), nan=0.0)
    assert np.hypot(*(centre((power - 0.012).clip(min=0)) - 0.5 - place)) < 0.2
    record = json.loads((folder / "alignment.json").read_text())
    assert record["matrix"] is None and record["model"] == "thin_plate"
    np.testing.assert_allclose(record["nodes"], nodes, atol=6e-4)


def test_a_rejected_match_leaves_the_georeference(source, monkeypatch):
    source.scene("a")
    found = Alignment("rejected", "too few points", [], math.nan)
    monkeypatch.setattr(grid, "estimate", lambda *_: found)
    folder = align(source, config=AlignConfig())
    np.testing.assert_allclose(
        10 ** (read_float(folder / "sar.tif") / 10), read_float(source.root / "a_s.tif").clip(10**-3.5), rtol=1e-3
    )
    record = json.loads((folder / "alignment.json").read_text())
    assert record["status"] == "rejected" and record["rmse_px"] is None


def test_switched_off_means_rejected_with_that_reason(source):
    source.scene("a")
    record = json.loads((align(source) / "alignment.json").read_text())
    assert record["status"] == "rejected" and record["reason"] == "co-registration is switched off"


def test_the_record_holds_the_hashes_of_the_rasters(source):
    source.scene("a")
    folder = align(source)
    record = (folder / "alignment.json").read_text()
    assert json.loads(record)["digests"] == {k: file_digest(folder / f"{k}.tif") for k in ("optical", "sar", "label")}
    require_scenes([folder], ("optical", "sar", "label"))
    assert (align(source) / "alignment.json").read_text() == record
    values = read_float(source.root / "a_s.tif")
    source.write("a_s.tif", values[:, ::-1])
    assert (align(source) / "alignment.json").read_text() != record


@pytest.mark.parametrize(("here", "missing"), [("optical", "sar"), ("sar", "optical")])
def test_a_scene_with_one_sensor_keeps_its_grid(source, here, missing):
    source.scene("a")
    source.scene("b", seed=1, transform=Affine(10, 2, 600_000, 2, -10, 5_400_000))
    files = {"optical": "b_o.tif,", "sar": ",b_s.tif"}
    source.sheet("a,a_o.tif,a_s.tif,a_l.tif,train", f"b,{files[here]},,predict")
    folder = align(source, "b", AlignConfig())
    expected = read_float(source.root / f"b_{here[0]}.tif")
    found = read_float(folder / f"{here}.tif")
    np.testing.assert_allclose(10 ** (found / 10) if here == "sar" else found, expected.clip(10**-3.5), rtol=1e-3)
    empty = read_float(folder / f"{missing}.tif")
    assert np.isnan(empty).all() and len(empty) == {"optical": 2, "sar": 1}[missing]
    grids = [read_grid(folder / f"{kind}.tif") for kind in ("optical", "sar", "label")]
    assert grids == [read_grid(source.root / f"b_{here[0]}.tif")] * 3
    assert (read_labels(folder / "label.tif") == 255).all()
    record = json.loads((folder / "alignment.json").read_text())
    assert (record["status"], record["model"], record["rmse_px"]) == ("single_sensor", "none", None)
    assert record["reason"].startswith("only the ") and record["n_points"] == 0


def test_a_single_sensor_gets_the_resolution_of_the_config(source):
    source.scene("a")
    source.write("b_s.tif", np.full((64, 64), 0.1, "f4"), "EPSG:32632", Affine(5, 0, 5e5, 0, -5, 5e6))
    source.write("c_s.tif", np.full((64, 64), 0.1, "f4"), "EPSG:4326", Affine(1e-4, 0, 15, 0, -1e-4, 48))
    source.sheet("a,a_o.tif,a_s.tif,a_l.tif,train", "b,,b_s.tif,,predict", "c,,c_s.tif,,predict")
    folder = align(source, "b", AlignConfig(resolution=10.0))
    assert read_grid(folder / "optical.tif").width == 32
    np.testing.assert_allclose(read_float(folder / "sar.tif"), -10, atol=1e-3)
    with pytest.raises(InputError, match=r"`align\.resolution`: is 10, which leaves 1 x 1 pixels of scene c"):
        align(source, "c", AlignConfig(resolution=10.0))


def test_masks_survive_every_step(source):
    source.scene("a")
    optical, sar = read_float(source.root / "a_o.tif").astype("u2"), read_float(source.root / "a_s.tif")
    optical[:, :4], sar[:, :, :5] = 0, np.nan
    label = np.ones((64, 64), "u1")
    label[-6:] = 0
    source.write("a_o.tif", optical, nodata=0)
    source.write("a_s.tif", sar)
    source.write("a_l.tif", label)
    folder = align(source)
    assert np.isnan(read_float(folder / "optical.tif")).all(axis=0).sum() == 4 * 64
    np.testing.assert_array_equal(np.isnan(read_float(folder / "sar.tif"))[0], np.isnan(sar[0]))
    ids = read_labels(folder / "label.tif")
    assert (ids[-6:] == 255).all() and (ids[:-6] == 0).all()


def test_no_data_that_the_sample_sheet_declares_counts(source):
    source.scene("a")
    optical, sar = read_float(source.root / "a_o.tif").astype("u2"), read_float(source.root / "a_s.tif")
    optical[:, 4:] += 8
    optical[:, :4], sar[:, :, :5] = 7, 9.0
    source.write("a_o.tif", optical)
    source.write("a_s.tif", sar)
    source.sheet("a,a_o.tif,a_s.tif,,train,7,9")
    sheet = source.root / "scenes.csv"
    sheet.write_text(sheet.read_text().replace("role", "role,optical_nodata,sar_nodata"))
    folder = align(source)
    assert (np.isnan(read_float(folder / "optical.tif")) == (np.arange(64) < 4)[:, None]).all()
    assert (np.isnan(read_float(folder / "sar.tif")) == (np.arange(64) < 5)).all()


def test_the_optical_file_keeps_type_and_no_data_and_declared_no_data_counts(source):
    source.scene("a")
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["red", "nir"], kind="reflectance", nodata=3999), sar=source.sensors["sar"]
    )
    folder = align(source, config=AlignConfig(enabled=False, resolution=20.0))
    with rasterio.open(folder / "optical.tif") as dataset:
        assert dataset.dtypes == ("uint16", "uint16") and dataset.nodata == 3999
        assert dataset.descriptions == ("red", "nir") and dataset.shape == (32, 32)


def test_backscatter_is_averaged_as_power(source):
    source.scene("a", label=False)
    source.source = SourceConfig(layout="scenes", optical="{scene}_o.tif", sar="{scene}_s.tif")
    source.labels = LabelsConfig()
    source.sensors = SensorsConfig(
        optical=source.sensors["optical"], sar=SensorConfig(bands=["vv"], kind="backscatter", scale="db")
    )
    checker = np.where(np.indices((64, 64)).sum(axis=0) % 2, 0.0, -20.0).astype("f4")
    source.write("a_s.tif", checker)
    folder = align(source, config=AlignConfig(enabled=False, resolution=20.0))
    expected = 10 * np.log10((1 + 0.01) / 2)
    np.testing.assert_allclose(read_float(folder / "sar.tif"), expected, atol=1e-3)
    assert (read_labels(folder / "label.tif") == 255).all()


def test_intermediate_files_are_removed(source):
    source.scene("a")
    folder = align(source, config=AlignConfig(enabled=False, resolution=20.0))
    assert {p.name for p in folder.iterdir()} == {"optical.tif", "sar.tif", "label.tif", "alignment.json"}


def coarse_scene(source):
    """A scene of several blocks whose files are on three grids, with a speckle filter."""
    source.scene("a", size=560)
    rng = np.random.default_rng(3)
    off = Affine(7, 0, 500_003, 0, -7, 5_399_996)
    power = np.kron(rng.gamma(2, 0.05, (40, 40)), np.ones((20, 20))) * rng.gamma(4, 1 / 4, (800, 800))
    power[300:420, 100:350] = np.nan
    source.write("a_s.tif", power.astype("f4"), transform=off)
    source.write("a_l.tif", rng.integers(0, 4, (600, 600)).astype("u1"), transform=off @ Affine.scale(1.3))
    sar = SensorConfig(bands=["vv"], kind="backscatter", scale="linear", speckle="lee", speckle_window=5)
    source.sensors = SensorsConfig(optical=source.sensors["optical"], sar=sar)


def test_a_scene_of_many_blocks_equals_one_of_a_single_block(source, monkeypatch):
    coarse_scene(source)
    config = AlignConfig(enabled=False, resolution=13.0)

    def rasters():
        folder = align(source, config=config)
        return [read_float(folder / f"{kind}.tif") for kind in ("optical", "sar", "label")]

    whole = rasters()
    assert whole[0].shape == (2, 431, 431) and len(blocks.block_windows(431, 431, 1)) == 1
    monkeypatch.setattr(blocks, "MAX_BLOCK_VALUES", 256 * 256)
    assert len(blocks.block_windows(431, 431, 1)) == 4
    for one, cut in zip(whole, rasters(), strict=True):
        np.testing.assert_array_equal(one, cut)
    monkeypatch.setattr(warp, "_MEMORY_MB", 1)  # gdalwarp works in blocks too, and pixels may move by its tolerance
    for one, cut in zip(whole[:2], rasters(), strict=False):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(cut))
        assert np.nanmax(np.abs(one - cut)) <= 0.01 * np.nanmax(np.abs(one))


def test_speckle_is_filtered_first_and_recorded(source):
    coarse_scene(source)
    folder = align(source)
    speckle = json.loads((folder / "alignment.json").read_text())["speckle"]
    assert (speckle["filter"], speckle["window"]) == ("lee", 5) and speckle["looks"] == pytest.approx(4, rel=0.15)
    smooth = read_float(folder / "sar.tif")
    sar = SensorConfig(bands=["vv"], kind="backscatter", scale="linear")
    source.sensors = SensorsConfig(optical=source.sensors["optical"], sar=sar)
    folder = align(source)
    assert "speckle" not in json.loads((folder / "alignment.json").read_text())
    rough = read_float(folder / "sar.tif")
    np.testing.assert_array_equal(np.isnan(smooth), np.isnan(rough))
    assert np.nanstd(np.diff(smooth)) < 0.6 * np.nanstd(np.diff(rough))
    power = [np.nanmean(10 ** (image / 10)) for image in (smooth, rough)]
    assert power[0] == pytest.approx(power[1], rel=0.01)


def test_a_speckle_filter_for_pictures_is_refused_before_any_work(source):
    source.scene("a")
    source.write("a_s.tif", np.random.default_rng(0).integers(1, 255, (64, 64)).astype("u1"))
    sar = SensorConfig(bands=["vv"], kind="backscatter", scale="auto", speckle="refined_lee")
    source.sensors = SensorsConfig(optical=source.sensors["optical"], sar=sar)
    with pytest.raises(InputError, match=r"`sensors\.sar\.speckle`: is `refined_lee`, but the values of scene a"):
        align(source)
    assert not (source.root / "results" / "scenes").exists()


@pytest.mark.slow
def test_a_large_scene_takes_little_memory(capfd):
    large_pairs.run([4000], "lee")
    cells = capfd.readouterr().out.splitlines()[-1].split("|")
    row = dict(zip(large_pairs.COLUMNS, (cell.strip() for cell in cells[1:-1]), strict=True))
    assert row["side, px"] == "4000" and row["found"].startswith("aligned")
    assert float(row["with GDAL's tools, GiB"]) < 1.6
