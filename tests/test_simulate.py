import numpy as np
import pytest
import rasterio

from tmcnet.config import DemoConfig
from tmcnet.errors import InputError
from tmcnet.raster.io.geometry import reproject_points
from tmcnet.raster.io.reader import read_grid
from tmcnet.seeding import generator
from tmcnet.simulate.noise import densify, distance_to
from tmcnet.simulate.scene import (
    add_speckle,
    displacement_map,
    make_displacement,
    optical_grid,
    sar_grid,
    sar_to_ground,
    simulate_scene,
)

CONFIG = DemoConfig(size=256, scenes=4, seed=11)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alder")
    simulate_scene(CONFIG, "alder", folder)
    return folder


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.profile


def test_scene_names_are_unique_and_match_their_number():
    for n in (1, 4, 20):
        names = DemoConfig(scenes=n).scene_names
        assert len(names) == len(set(names)) == n


def test_an_unknown_scene_is_named_with_a_remedy(tmp_path):
    with pytest.raises(InputError, match=r"baobab.*alder"):
        simulate_scene(CONFIG, "baobab", tmp_path)


def test_files_have_the_documented_form(scene):
    optical, profile = read(scene / "optical.tif")
    assert (optical.shape, profile["dtype"], profile["nodata"]) == ((4, 256, 256), "uint16", 0)
    label, label_profile = read(scene / "label.tif")
    assert (label.shape, label_profile["dtype"]) == ((1, 256, 256), "uint8")
    assert label_profile["transform"] == profile["transform"]
    sar, sar_profile = read(scene / "sar.tif")
    assert (len(sar), sar_profile["dtype"]) == (2, "float32")
    assert np.isnan(sar_profile["nodata"])
    assert sar_profile["crs"] != profile["crs"]
    assert (sar[np.isfinite(sar)] >= 0).all()


def test_every_class_occurs_in_every_scene_and_labels_match_the_truth(tmp_path):
    for name in DemoConfig(size=128, scenes=4).scene_names:
        simulate_scene(DemoConfig(size=128, scenes=4), name, tmp_path / name)
        label = read(tmp_path / name / "label.tif")[0][0]
        truth = np.load(tmp_path / name / "truth.npz")["label"]
        assert set(np.unique(truth)) == set(range(1, 7)), name
        assert set(np.unique(label)) == set(range(7)), name
        assert (label[label > 0] == truth[label > 0]).all()


def test_class_shares_have_a_long_tail(scene):
    shares = np.bincount(np.load(scene / "truth.npz")["label"].ravel(), minlength=7)[1:] / 256**2
    assert shares[2] == shares.max()
    assert shares[[4, 5]].max() < 0.08


def test_the_same_config_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    small = DemoConfig(size=128)
    scene = tmp_path / "once"
    simulate_scene(small, "alder", scene)
    simulate_scene(small, "alder", tmp_path / "again")
    simulate_scene(small.model_copy(update={"seed": 12}), "alder", tmp_path / "other")
    for file in ("optical.tif", "sar.tif", "label.tif", "truth.npz"):
        assert (tmp_path / "again" / file).read_bytes() == (scene / file).read_bytes()
        assert (tmp_path / "other" / file).read_bytes() != (scene / file).read_bytes()


@pytest.mark.parametrize("largest", [0.0, 2.0, 6.0, 20.0])
def test_the_displacement_has_the_given_maximum_and_is_nearly_affine(largest):
    field = displacement_map(make_displacement(generator(3, "test"), 200, largest))
    assert np.hypot(field[..., 0], field[..., 1]).max() == pytest.approx(largest, abs=1e-4)
    y, x = np.mgrid[:200, :200]
    design = np.column_stack([x.ravel(), y.ravel(), np.ones(x.size)])
    values = field.reshape(-1, 2)
    residual = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    assert np.abs(residual).max() < 0.5


@pytest.mark.parametrize("number", range(4))
def test_sar_pixels_show_the_ground_given_by_the_displacement(number):
    optical = optical_grid(generator(5, "place"), 160)
    sar = sar_grid(optical, number, 6.0)
    field = make_displacement(generator(5, "field"), 160, 6.0)
    rows, cols = sar_to_ground(sar, optical, field)
    for row, col in ((3, 5), (sar.height // 2, sar.width // 3), (sar.height - 2, sar.width - 9)):
        dx, dy = field.at(cols[row, col], rows[row, col])
        x, y = optical.transform @ (cols[row, col] + dx + 0.5, rows[row, col] + dy + 0.5)
        x, y = reproject_points(optical.crs, sar.crs, np.array([x]), np.array([y]))
        back = ~sar.transform @ (float(x[0]), float(y[0]))
        assert back == pytest.approx((col + 0.5, row + 0.5), abs=0.01)


def test_the_sar_image_covers_the_optical_image_with_a_margin(scene):
    optical, sar = read_grid(scene / "optical.tif"), read_grid(scene / "sar.tif")
    edge = np.linspace(-10, 266, 30)
    x, y = optical.transform @ tuple(np.meshgrid(edge, edge))
    col, row = ~sar.transform @ reproject_points(optical.crs, sar.crs, x, y)
    values = read(scene / "sar.tif")[0][0]
    assert np.isfinite(values[row.astype(int), col.astype(int)]).all()


def test_speckle_has_mean_one_and_variance_one_over_looks():
    speckle = add_speckle(generator(1, "test"), np.ones((1, 400, 400), np.float32), 4.0)
    assert speckle.mean() == pytest.approx(1.0, abs=0.01)
    assert speckle.var() == pytest.approx(0.25, rel=0.03)


def test_the_cloud_share_is_about_the_given_one(tmp_path):
    bright = {}
    for share in (0.0, 0.3):
        simulate_scene(DemoConfig(size=160), "birch", tmp_path / str(share), cloud_share=share)
        bright[share] = (read(tmp_path / str(share) / "optical.tif")[0][0] > 3500).mean()
    assert bright[0.0] < 0.002
    assert 0.18 < bright[0.3] < 0.4


def test_distance_to_a_line_matches_the_formula():
    line = densify(np.array([[2.0, 3.0], [30.0, 3.0]]))
    distance = distance_to(line, (20, 33))
    assert distance[10, 15] == pytest.approx(7.0)
    assert distance[3, 0] == pytest.approx(2.0)
