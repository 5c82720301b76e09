import csv
import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.enums import ColorInterp
from torch import nn

from tests.train.tiny import build_tiles, configs
from tmcnet.classes import ClassTable
from tmcnet.config import ContextConfig, MapsConfig, Run, SensorConfig, SensorsConfig
from tmcnet.config.training import deep_context_px
from tmcnet.dataset.normalise import Band, Normalisation
from tmcnet.errors import InputError
from tmcnet.evaluate.map_files import MapStyle, style_map
from tmcnet.evaluate.maps import (
    SceneImages,
    Share,
    fit_windows,
    join_strips,
    map_tiles,
    predict_strips,
    unfamiliar_values,
    write_prediction,
)
from tmcnet.evaluate.trained import Trained, probabilities
from tmcnet.model.context import ContextFeatures
from tmcnet.model.networks import build_network
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import read_float, read_grid
from tmcnet.raster.io.writer import write_raster

RUN = Run.parse("mssnet-corrected__random__R50__s1")
CLASSES = ClassTable.of([("open water", "#0000ff"), ("land", "#00ff00"), ("forest", "#004400")])
BANDS = {"optical": 3, "sar": 1}


class Blur(nn.Module):
    """A network of known reach: 3 pixels to each side."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Conv2d(4, 3, 7, padding=3)

    def forward(self, images):
        return self.layer(torch.cat([images["optical"], images["sar"]], 1))


def write_scene(root, height, width, crs="EPSG:32633"):
    random = np.random.default_rng(0)
    grid = Grid(crs, Affine(10, 0, 500000, 0, -10, 5200000), width, height)
    optical = random.integers(30, 180, (3, height, width)).astype(np.uint16)
    sar = random.normal(-12, 4, (1, height, width)).astype(np.float32)
    optical[:, :9, :9] = 0
    sar[:, :5, :20] = np.nan
    write_raster(root / "optical.tif", optical, grid, nodata=0)
    write_raster(root / "sar.tif", sar, grid, nodata=np.nan)
    return SceneImages("here", {kind: root / f"{kind}.tif" for kind in ("optical", "sar")})


@pytest.fixture(scope="module")
def scaling(tmp_path_factory):
    return Normalisation.read(build_tiles(tmp_path_factory.mktemp("world"), tiles=1) / "normalisation.json")


def trained_with(network, scaling):
    _, model, sensors, _ = configs()
    return Trained(network.eval(), RUN, model, sensors, CLASSES, scaling, {})


def whole_scene(trained, scene):
    images = {
        kind: torch.from_numpy(trained.normalisation.apply(read_float(path), kind))[None]
        for kind, path in scene.images.items()
    }
    return probabilities(trained.network, images)[0].numpy()


@pytest.mark.parametrize("count", [2, 5])
def test_strips_of_several_jobs_join_to_the_map_of_one_byte_for_byte(tmp_path, scaling, count):
    scene, trained = write_scene(tmp_path, 90, 110), trained_with(Blur(), scaling)
    config = MapsConfig(window=48, overlap=16, batch_size=3)
    whole, joined = tmp_path / "whole" / "here.tif", tmp_path / "joined" / "here.tif"
    write_prediction(trained, scene, config, "run", whole.with_name("prediction.tif"))
    strips = [tmp_path / f"{number}.tif" for number in range(count)]
    records = [write_prediction(trained, scene, config, "run", strips[n], Share(n, count)) for n in range(count)]
    assert [path.stat().st_size > 0 for path in strips] == {2: [1, 1], 5: [0, 1, 0, 1, 1]}[count]
    joined.parent.mkdir()
    record = join_strips(strips, scene.grid, records, joined.with_name("prediction.tif"))
    assert record.megapixels == pytest.approx(90 * 110 / 1e6)
    for file in (whole, joined):
        style_map(file.with_name("prediction.tif"), MapStyle(CLASSES), "here", file)
    names = {file.name for file in whole.parent.iterdir()}
    assert names == {file.name for file in joined.parent.iterdir()} and "here_confidence.tif" in names
    for name in names:
        assert (whole.parent / name).read_bytes() == (joined.parent / name).read_bytes(), name
    with pytest.raises(InputError, match="rows together; the scene has 90"):
        join_strips(strips[:-1], scene.grid, records, tmp_path / "short.tif")


def test_windows_leave_no_seam(tmp_path, scaling):
    """A network that reaches no farther than the unused part of an overlap gives what it gives in one piece."""
    scene, trained = write_scene(tmp_path, 90, 110), trained_with(Blur(), scaling)
    single = whole_scene(trained, scene)
    strips = list(predict_strips(trained, scene, MapsConfig(window=48, overlap=16, batch_size=3)))
    blended = np.concatenate([strip.probabilities for strip in strips], axis=1)
    assert [s.top for s in strips] == [0, 32, 64]
    assert np.abs(blended - single).max() < 1e-5
    hard = MapsConfig(window=48, overlap=0, batch_size=3)
    abrupt = np.concatenate([s.probabilities for s in predict_strips(trained, scene, hard)], axis=1)
    assert np.abs(abrupt - single).max() > 0.05


class Relative(nn.Module):
    """A network of context features that reach 31 pixels."""

    def __init__(self):
        super().__init__()
        self.features = ContextFeatures(ContextConfig(windows=[3], relative_window=63))
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, images):
        return self.scale * self.features(*images.values())[:, -3:]


def test_windows_grow_to_the_reach_of_context_features(tmp_path, scaling):
    scene, trained = write_scene(tmp_path, 420, 300), trained_with(Relative(), scaling)
    strips = list(predict_strips(trained, scene, MapsConfig(window=64, overlap=16)))
    assert [s.top for s in strips] == [0, 80, 160, 240, 320]
    blended = np.concatenate([strip.probabilities for strip in strips], axis=1)
    assert np.abs(blended - whole_scene(trained, scene)).max() < 1e-5
    assert fit_windows(MapsConfig(window=256, overlap=96), trained.network) == (256, 96)


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"dilations": [1, 2, 3], "context": ContextConfig(windows=[3], relative_window=None)}, (1024, 192)),
        ({"dilations": [1, 2, 3]}, (1024, 304)),
        ({"dilations": [6, 12, 18]}, (1504, 752)),
    ],
)
def test_windows_and_overlap_follow_the_network(changes, windows):
    model = configs()[1].model_copy(update={"context": ContextConfig(), "detail_channels": 8, **changes})
    network = build_network("mssnet", "corrected", BANDS, 3, model)
    assert fit_windows(MapsConfig(), network) == windows
    # what jobs that have not read the network ask memory for
    assert MapsConfig().fit(model.context.reach, deep_context_px(max(model.dilations))) == windows
    assert fit_windows(MapsConfig(window=512), network) == (max(512, 2 * windows[1]), windows[1])


def test_memory_is_flat_in_height(tmp_path, scaling):
    scene, trained = write_scene(tmp_path, 400, 40), trained_with(Blur(), scaling)
    strips = list(predict_strips(trained, scene, MapsConfig(window=32, overlap=16)))
    assert max(s.probabilities.shape[1] for s in strips) == 32
    assert sum(s.probabilities.shape[1] for s in strips) == 400
    assert np.concatenate([s.valid for s in strips]).shape == (400, 40)


@pytest.mark.parametrize("size", [(90, 110), (20, 33), (300, 70)])
def test_a_small_scene_is_one_piece_and_any_size_works(tmp_path, scaling, size):
    _, model, _, _ = configs()
    torch.manual_seed(0)
    scene = write_scene(tmp_path, *size)
    trained = trained_with(build_network("mssnet", "corrected", BANDS, 3, model), scaling)
    blended = np.concatenate(
        [s.probabilities for s in predict_strips(trained, scene, MapsConfig(window=128, overlap=32))], 1
    )
    assert blended.shape == (3, *size)
    if max(size) <= 128:
        assert np.allclose(blended, whole_scene(trained, scene), atol=1e-5)


def draw(tmp_path, scaling, scene, classes=CLASSES, **changes):
    _, model, _, compute = configs()
    torch.manual_seed(0)
    network = build_network("mssnet", "corrected", BANDS, 3, model)
    trained_with(network, scaling).write(tmp_path / "weights.safetensors", {})
    config = MapsConfig(**{"window": 64, "overlap": 16, "test_time": "all", **changes})
    map_tiles(
        tmp_path / "weights.safetensors", [scene], classes, config, compute, RUN.name, tmp_path / "maps",
        tmp_path / "maps" / f"{RUN.name}.csv",
    )  # fmt: skip
    return tmp_path / "maps" / scene.name


def test_maps_keep_grid_classes_and_no_data(tmp_path, scaling):
    scene = write_scene(tmp_path, 300, 530)
    folder = draw(tmp_path, scaling, scene)
    with rasterio.open(folder / f"{RUN.name}.tif") as file:
        ids = file.read(1)
        grid = read_grid(scene.images["optical"])
        assert (file.crs.to_string(), file.transform, file.shape) == (grid.crs, grid.transform, (300, 530))
        assert (file.dtypes, file.nodata, file.colorinterp) == (("uint8",), 255, (ColorInterp.palette,))
        assert file.colormap(1)[2] == (0, 0x44, 0, 255)
        assert file.tags(1)["CLASS_0"] == "open water"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) == [2]
    with rasterio.open(folder / f"{RUN.name}_confidence.tif") as file:
        sure = file.read(1)
        assert (file.dtypes, file.nodata) == (("uint8",), 255)
    empty = np.zeros(ids.shape, bool)
    empty[:5, :9] = True  # where both sensors lack data
    assert ((ids == 255) == empty).all()
    assert ((sure == 255) == empty).all()
    assert set(np.unique(ids[~empty])) <= {0, 1, 2}
    assert sure[~empty].min() >= 33
    assert sure[~empty].max() <= 100
    said = json.loads(
        subprocess.run(["gdalinfo", "-json", str(folder / f"{RUN.name}.tif")], capture_output=True).stdout
    )
    assert said["bands"][0]["colorTable"]["entries"][0] == [0, 0, 255, 255]
    assert said["bands"][0]["noDataValue"] == 255
    assert said["bands"][0]["categories"] == CLASSES.names
    endings = (".png", ".qml", ".tif", ".tif.aux.xml", "_areas.csv", "_confidence.tif")
    names = [f"{RUN.name}{ending}" for ending in endings]
    assert sorted(p.name for p in folder.iterdir()) == names
    header, row = (tmp_path / "maps" / f"{RUN.name}.csv").read_text().splitlines()
    assert header == "scene,path,confidence,megapixels,seconds"
    assert row.startswith(f"here,here/{RUN.name}.tif,here/{RUN.name}_confidence.tif,0.159000,")


def test_a_coloured_copy_shows_the_class_colours(tmp_path, scaling):
    folder = draw(tmp_path, scaling, write_scene(tmp_path, 64, 64), rgb=True)
    with rasterio.open(folder / f"{RUN.name}.tif") as file:
        ids = file.read(1)
    with rasterio.open(folder / f"{RUN.name}_rgb.tif") as file:
        colours = file.read((1, 2, 3))
    for c in CLASSES.classes:
        assert (c.rgb == colours[:, ids == c.id].T).all()


def test_polygons_beside_the_map_and_none_of_an_earlier_one(tmp_path, scaling):
    scene = write_scene(tmp_path, 64, 64)
    folder = draw(tmp_path, scaling, scene, polygons=True, minimum_mapping_unit=800)
    ask = ["ogr2ogr", "-f", "CSV", "/vsistdout/", str(folder / f"{RUN.name}.gpkg"), "land_cover"]
    rows = list(csv.DictReader(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines()))
    assert {row["class"] for row in rows} <= set(CLASSES.names)
    areas = [float(row["area_m2"]) for row in rows]
    assert sum(areas) == 100 * (64 * 64 - 5 * 9)
    assert min(areas) >= 800
    folder = draw(tmp_path, scaling, scene)
    assert not list(folder.glob("*.gpkg"))


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ((4, 1, CLASSES), r"trained on 4 bands of `optical` \['b0', .*; scene here has 3"),
        ((3, 2, CLASSES), r"trained on 2 bands of `sar` \['b0', 'b1'\]; scene here has 1"),
        (
            (3, 1, ClassTable.of([("ice", "#ffffff"), ("land", "#00ff00")])),
            r"was trained on the classes \['ice', 'land'\]; the classes",
        ),
    ],
)
def test_a_network_of_other_bands_or_classes_is_named(tmp_path, network, told):
    optical, sar, classes = network
    _, model, _, compute = configs()
    sensors = SensorsConfig(
        optical=SensorConfig(bands=[f"b{i}" for i in range(optical)], kind="reflectance"),
        sar=SensorConfig(bands=[f"b{i}" for i in range(sar)], kind="backscatter"),
    )
    counts = {"optical": optical, "sar": sar}
    bands = {n: tuple(Band(f"b{i}", 0.0, 1.0, 0.5, 0.2) for i in range(count)) for n, count in counts.items()}
    built = build_network("mssnet", "corrected", counts, len(classes), model)
    weights = tmp_path / "elsewhere.safetensors"
    Trained(built, RUN, model, sensors, classes, Normalisation(bands, 1.5, 1), {}).write(weights, {})
    scene = write_scene(tmp_path, 64, 64)
    maps = tmp_path / "maps"
    with pytest.raises(InputError, match=rf"elsewhere\.safetensors: (was )?{told}"):
        map_tiles(weights, [scene], CLASSES, MapsConfig(window=64), compute, "elsewhere", maps, maps / "e.csv")
    assert not maps.exists()


def test_ready_made_tiles_without_a_georeference(tmp_path, scaling):
    random = np.random.default_rng(0)
    for name, bands in (("optical", 3), ("sar", 1)):
        profile = {"driver": "PNG", "count": bands, "height": 64, "width": 64, "dtype": "uint8"}
        with rasterio.open(tmp_path / f"{name}.png", "w", **profile) as file:
            file.write(random.integers(1, 255, (bands, 64, 64)).astype(np.uint8))
    images = {name: tmp_path / f"{name}.png" for name in ("optical", "sar")}
    folder = draw(tmp_path, scaling, SceneImages("0001", images))
    with rasterio.open(folder / f"{RUN.name}.tif") as file:
        assert file.crs is None
        assert file.read(1).max() < 3


def test_images_of_different_sizes_are_named(tmp_path, scaling):
    scene = write_scene(tmp_path, 60, 60)
    other = write_scene(tmp_path / "other", 50, 60)
    with pytest.raises(InputError, match=r"scene here: its images differ in size \(60 x 60 and 50 x 60\)"):
        draw(tmp_path, scaling, SceneImages("here", {**scene.images, "sar": other.images["sar"]}))


@pytest.mark.parametrize(("network", "empty"), [("optical_only", (9, 9)), ("sar_only", (5, 20)), ("mssnet", (5, 9))])
def test_validity_is_that_of_the_sensors_looked_at(tmp_path, scaling, network, empty):
    _, model, sensors, _ = configs()
    scene, run = write_scene(tmp_path, 40, 40), replace(RUN, network=network)
    trained = Trained(Blur().eval(), run, model, sensors, CLASSES, scaling, {})
    (strip,) = predict_strips(trained, scene, MapsConfig(window=64, overlap=16))
    assert np.array_equal(np.argwhere(~strip.valid).max(axis=0) + 1, empty)


@pytest.mark.parametrize("unit", [1, 1e-4])
@pytest.mark.parametrize(
    ("lows", "added", "noted"),
    [
        ([300, 250, 200], [1000, 1000, 1000], "begin 1000 higher"),
        ([1300, 1250, 1200], [-1000, -1100, -900], "begin 1000 lower"),
        ([300, 250, 200], [900, 1300, 1700], "begin 1300 higher"),
        ([300, 250, 200], [100, 1000, 1200], ""),
        ([300, 250, 200], [1600, 1700, 1800], ""),
        ([7300, 7400, 7200], [900, 1000, 1100], ""),
    ],
)
def test_values_of_which_only_one_side_has_the_offset_of_sentinel_2_are_noted(
    tmp_path, scaling, unit, lows, added, noted
):
    random = np.random.default_rng(0)
    values = np.sort(random.uniform(0, 4000, (3, 64 * 64))).reshape(3, 64, 64) + np.array(lows)[:, None, None]
    limits = np.percentile(values * unit, [2, 98], axis=(1, 2))
    bands = tuple(Band(name, low, high, 0, 1) for name, low, high in zip("abc", *limits.tolist(), strict=True))
    optical = (values + np.array(added)[:, None, None]) * unit
    write_raster(
        tmp_path / "optical.tif", optical.astype("f4"), Grid("EPSG:32633", Affine(10, 0, 0, 0, -10, 0), 64, 64)
    )
    trained = trained_with(Blur(), Normalisation({"optical": bands}, 1.5, 1))
    found = list(unfamiliar_values(trained, SceneImages("a", {"optical": tmp_path / "optical.tif"})))
    if not noted:
        assert found == []
        return
    (text,) = found
    number = float(text.split("begin ")[1].split()[0]) / unit
    assert noted.split()[-1] in text and number == pytest.approx(float(noted.split()[1]), rel=1e-3)
