import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, reproject
from scipy import ndimage
from skimage.io import imread

from tmcnet.config import AlignConfig, DemoConfig
from tmcnet.raster.io.rasters import write_raster
from tmcnet.raster.io.windowed import ArrayImage, FileImage
from tmcnet.raster.register import affine_fit, control_points, coregister, matching
from tmcnet.raster.register.alignment import Alignment
from tmcnet.raster.register.alignment_picture import draw
from tmcnet.raster.register.control_points import control_grid
from tmcnet.raster.register.coregister import estimate, warp
from tmcnet.raster.register.deformation import AffineMap
from tmcnet.raster.register.model_choice import choose
from tmcnet.raster.register.overview import about_centre
from tmcnet.simulate.scene import simulate_scene

SIZE = 320


def demo_pair(folder, name="birch", size=SIZE, **settings):
    simulate_scene(DemoConfig(size=size, **settings), name, folder)
    with rasterio.open(folder / "optical.tif") as optical, rasterio.open(folder / "sar.tif") as sar:
        reference = optical.read().astype(np.float32)
        reference[reference == 0] = np.nan
        moving = np.full((2, size, size), np.nan, np.float32)
        reproject(
            sar.read(), moving, src_transform=sar.transform, src_crs=sar.crs, dst_transform=optical.transform,
            dst_crs=optical.crs, resampling=Resampling.bilinear, src_nodata=np.nan, dst_nodata=np.nan,
        )  # fmt: skip
    return reference, 10 * np.log10(np.maximum(moving, 1e-5)), np.load(folder / "truth.npz")["displacement"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return demo_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def found(pair):
    return estimate(pair[0], pair[1])


def residual(alignment, displacement):
    height, width = displacement.shape[:2]
    points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2).astype(float)
    moved = alignment.where(points) - points
    return np.hypot(*(moved - displacement.reshape(-1, 2)).T)


def test_known_displacement_is_found_to_half_a_pixel(pair, found):
    assert found.status == "aligned"
    assert np.median(np.hypot(*pair[2].reshape(-1, 2).T)) > 4.0
    assert np.median(residual(found, pair[2])) < 0.5


def test_record_is_plain_json_and_holds_the_points(found):
    record = json.loads(json.dumps(found.to_dict()))
    assert set(record) == {
        "status", "model", "matrix", "n_points", "n_inliers", "rmse_px", "reason", "points", "nodes"
    }  # fmt: skip
    assert (record["matrix"] is None) == bool(record["nodes"]) == (found.model in ("quadratic", "thin_plate"))
    assert record["n_points"] == len(record["points"])
    assert record["n_inliers"] == sum(p[4] for p in record["points"])


def test_second_pass_finds_nothing_left_to_correct(pair, found):
    corrected = warp(pair[1], found.where)
    again = estimate(pair[0], corrected)
    largest = residual(again, np.zeros((SIZE, SIZE, 2))).max()
    assert again.status == "already_aligned" or largest < 0.6
    if again.status == "already_aligned":
        assert again.matrix == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_same_input_gives_the_same_record(pair, found):
    assert estimate(pair[0], pair[1]).to_dict() == found.to_dict()


def test_unrelated_images_are_rejected(pair, tmp_path):
    stranger = demo_pair(tmp_path, "cedar")[1]
    result = estimate(pair[0], stranger)
    assert (result.status, result.model, result.rmse_px) == ("rejected", "none", None)
    assert result.matrix == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert result.reason


def test_a_correction_that_does_not_tell_points_left_out_is_rejected(pair, monkeypatch):
    monkeypatch.setattr(coregister, "choose", lambda *given: replace(choose(*given), error=4.04))
    result = estimate(pair[0], pair[1])
    assert result.status == "rejected" and "leaves 4.0 pixels at points left out" in result.reason


@pytest.mark.parametrize("kind", ["constant", "noise", "nothing"])
def test_images_without_common_content_are_rejected(pair, kind):
    rng = np.random.default_rng(0)
    moving = {"constant": np.ones((SIZE, SIZE)), "noise": rng.normal(size=(SIZE, SIZE))}.get(kind)
    moving = np.full((SIZE, SIZE), np.nan) if moving is None else moving
    assert estimate(pair[0], moving.astype(np.float32)).status == "rejected"


def shift_by(x, y):
    return AffineMap(np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))


def test_contrast_reversal_and_no_data_do_not_matter(pair):
    image = pair[0][1]
    moving = -warp(image[None], shift_by(-4.3, 2.6))[0]
    moving[:, :60] = np.nan
    moving[200:240, 150:220] = np.nan
    result = estimate(image, moving)
    assert result.status == "aligned"
    points = np.array([[60.0, 40.0], [250.0, 90.0], [160.0, 260.0]])
    assert np.abs(result.where(points) - points - [4.3, -2.6]).max() < 0.15


def test_pure_shift_gets_the_stiffest_model_that_tells_it(pair):
    image = pair[0][2]
    result = estimate(image, warp(image[None], shift_by(3.0, 5.0))[0])
    assert result.model == "shift"
    assert np.allclose(np.array(result.matrix)[:, 2], [-3, -5], atol=0.1)


def test_an_aligned_pair_is_left_alone(pair):
    image = pair[0][2]
    result = estimate(image, warp(image[None], shift_by(0.2, -0.1))[0])
    assert (result.status, result.model, result.nodes) == ("already_aligned", "none", [])
    assert result.matrix == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert result.rmse_px == pytest.approx(np.hypot(0.2, 0.1), abs=0.15)


def test_a_large_shift_with_rotation_and_scale_is_found(tmp_path):
    optical, sar, truth = demo_pair(tmp_path, "birch", displacement=0.0, size=400)
    turn = about_centre(-2.0, 1.03, 400, 400) + np.array([[0, 0, 48.0], [0, 0, -36.0]])
    result = estimate(optical, warp(sar, inverse(AffineMap(turn))))
    points = np.array([[120.0, 120.0], [280.0, 120.0], [200.0, 200.0], [120.0, 300.0], [290.0, 290.0]])
    assert result.status == "aligned"
    assert np.hypot(*(result.where(points) - affine_fit.apply(turn, points)).T).max() < 1.0
    assert np.abs(truth).max() == 0


def inverse(where):
    def back(points):
        found = points.copy()
        for _ in range(30):
            found = found - (where(found) - points)
        return found

    return back


def bend(points, most=3.0):
    x, y = 2 * np.pi * points.T / SIZE
    return points + most * np.stack([np.sin(x) * np.cos(y), np.cos(x) * np.sin(0.7 * y)], axis=1)


def test_a_smooth_local_warp_is_followed(pair):
    image = pair[0]
    points = np.stack(np.meshgrid(np.arange(30, 290, 20.0), np.arange(30, 290, 20.0)), -1).reshape(-1, 2)
    result = estimate(image, warp(image, inverse(bend)), AlignConfig(template=32, spacing=16))
    errors = np.hypot(*(result.where(points) - bend(points)).T)
    assert (result.status, result.model, result.matrix) == ("aligned", "thin_plate", None)
    assert np.median(errors) < 0.3 and np.percentile(errors, 95) < 1.0


def test_a_pair_bent_as_no_model_tells_is_not_called_aligned(pair):
    bent = warp(pair[0], inverse(lambda points: bend(points, 7.0)))
    refused = estimate(pair[0], bent, AlignConfig(template=32, spacing=16, models=["shift"]))
    assert refused.status == "rejected"
    assert "in a way that no model tells" in refused.reason


def test_images_in_files_give_the_same_as_images_in_memory(pair, found, tmp_path):
    write_raster(tmp_path / "o.tif", pair[0], None, float("nan"))
    write_raster(tmp_path / "s.tif", pair[1], None, float("nan"))
    files = [FileImage(tmp_path / name) for name in ("o.tif", "s.tif")]
    assert [image.shape for image in files] == [np.shape(image) for image in pair[:2]]
    assert estimate(*files).to_dict() == found.to_dict()


def test_different_grids_are_a_programming_error(pair):
    with pytest.raises(ValueError, match="one grid"):
        estimate(pair[0], pair[1][:, :-1])


def test_correlation_against_the_slow_formula():
    rng = np.random.default_rng(1)
    search = rng.random((1, 3, 14, 14)).astype(np.float32)
    search_valid = rng.random((1, 14, 14)) > 0.1
    template = search[:, :, 3:13, 1:11].copy()
    template_valid = rng.random((1, 10, 10)) > 0.1
    surface = matching.correlate(template, template_valid, search, search_valid)[0]
    first = template[0] - (template[0] * template_valid).sum((1, 2), keepdims=True) / template_valid.sum()
    second = search[0] - (search[0] * search_valid).sum((1, 2), keepdims=True) / search_valid.sum()
    for row in range(5):
        for col in range(5):
            part = second[:, row : row + 10, col : col + 10]
            both = template_valid[0] & search_valid[0, row : row + 10, col : col + 10]
            top = (first * part * both).sum()
            bottom = np.sqrt((first**2 * both).sum() * (part**2 * both).sum())
            assert surface[row, col] == pytest.approx(top / bottom, abs=1e-4)
    assert np.unravel_index(surface.argmax(), surface.shape) == (3, 1)


def test_peak_is_found_between_pixels():
    y, x = np.mgrid[-6:7, -6:7]
    surface = np.exp(-((x - 1.3) ** 2 + (y + 2.4) ** 2) / 18.0)[None].astype(np.float32)
    found = matching.locate(surface)
    assert found.dx[0] == pytest.approx(1.3, abs=0.05)
    assert found.dy[0] == pytest.approx(-2.4, abs=0.05)


def test_blocks_make_no_difference_and_a_known_shift_is_matched_there_and_back(pair, monkeypatch):
    image, grid = pair[0][:1], control_grid((SIZE, SIZE), 32)
    images = ArrayImage(image), ArrayImage(ndimage.shift(image, (0, 2, -1), order=1, mode="nearest"))
    found = []
    for block in (1000, 90):
        monkeypatch.setattr(control_points, "BLOCK", block)
        found.append(control_points.match(*images, grid, control_points.Window(48, 5)))
    (whole, back), (cut, _) = found
    ok = np.isfinite(whole.dx) & np.isfinite(cut.dx) & np.isfinite(back.dx)
    assert ok.sum() > 50
    assert np.abs(whole.dx[ok] - cut.dx[ok]).max() < 1e-3
    assert np.median(whole.dx[ok]) == pytest.approx(-1.0, abs=0.05)
    assert np.median(whole.dy[ok]) == pytest.approx(2.0, abs=0.05)
    assert np.median(back.dx[ok]) == pytest.approx(1.0, abs=0.05)


def test_contrasts_of_amplitudes_count_as_ratios_and_those_in_decibels_do_not():
    image = np.random.default_rng(0).gamma(4, 10, (1, 64, 64)).astype(np.float32)
    assert matching.tone([image], speckled=True).logarithmic
    assert not matching.tone([10 * np.log10(image) - 20], speckled=True).logarithmic
    assert not matching.tone([image], speckled=False).logarithmic
    nothing = matching.tone([np.full((2, 64, 64), np.nan, np.float32)], speckled=True)
    assert nothing.floor == 1.0 and (nothing.ranges == 0).all()


def test_robust_fit_survives_half_of_the_points_being_wrong():
    rng = np.random.default_rng(2)
    source = rng.uniform(0, 500, (200, 2))
    truth = np.array([[1.004, -0.01, 5.0], [0.01, 0.997, -3.0]])
    target = affine_fit.apply(truth, source) + rng.normal(0, 0.2, (200, 2))
    target[::2] += rng.uniform(-15, 15, (100, 2))
    agree = affine_fit.consensus(source, target, 1.5)
    fitted = affine_fit.refine(source, target, agree, np.ones(200), 1.5, "affine")
    assert np.abs(affine_fit.apply(fitted, source) - affine_fit.apply(truth, source)).max() < 0.3


def test_a_fit_listens_to_the_points_that_are_trusted():
    source = np.random.default_rng(3).uniform(0, 500, (100, 2))
    target = source + np.where(np.arange(100) < 70, 0.4, 0.0)[:, None]
    shifts = [
        affine_fit.refine(source, target, np.ones(100, bool), trust, 4.0, "shift")[:, 2]
        for trust in (np.ones(100), np.where(np.arange(100) < 70, 0.01, 1.0))
    ]
    assert shifts[0].min() > 0.2 and shifts[1].max() < 0.02


def test_picture_shows_something(pair, found, tmp_path):
    draw(pair[0], pair[1], warp(pair[1], found.where), found, tmp_path / "alignment.png")
    rejected = estimate(pair[0], np.ones((SIZE, SIZE), np.float32))
    draw(pair[0], pair[1], pair[1], rejected, tmp_path / "rejected.png")
    for name in ("alignment.png", "rejected.png"):
        assert (tmp_path / name).read_bytes()[1:4] == b"PNG"
        assert 50_000 < (tmp_path / name).stat().st_size < 5_000_000


@pytest.mark.parametrize("seen", ["optical", "sar"])
def test_the_picture_of_a_single_sensor_shows_it(pair, tmp_path, seen):
    nothing = [np.full_like(image, np.nan) for image in pair[:2]]
    optical, sar = (pair[0], nothing[1]) if seen == "optical" else (nothing[0], pair[1])
    single = Alignment("single_sensor", "none", np.eye(2, 3).tolist(), 0, 0, None, "only one")
    draw(optical, sar, sar, single, tmp_path / "single.png")
    draw(*nothing, nothing[1], single, tmp_path / "nothing.png")
    drawn, black = (imread(tmp_path / f"{name}.png").astype(int) for name in ("single", "nothing"))
    assert drawn.shape == black.shape and drawn.shape[1] < 1.4 * drawn.shape[0]
    assert (abs(drawn - black).max(axis=2) > 40).mean() > 0.3


def real(name):
    root = os.environ.get("TMCNET_DATA")
    if not root:
        pytest.skip("TMCNET_DATA is not set: the real pairs are needed here")
    with rasterio.open(Path(root) / name) as dataset:
        return dataset.read().astype(np.float32)


def test_real_pair_with_checkpoints_is_brought_back_from_a_known_shift():
    optical, sar = real("coregistration/cfog_2/optical.tif"), real("coregistration/cfog_2/sar.tif")
    table = Path(os.environ["TMCNET_DATA"]) / "coregistration/cfog_2/checkpoints.csv"
    checks = np.loadtxt(table, delimiter=",", skiprows=1)
    design = np.column_stack([checks[:, :2], np.ones(len(checks))])
    affine = np.linalg.lstsq(design, checks[:, 2:], rcond=None)[0].T
    georeference = affine - np.array([[0, 0, 6.0], [0, 0, -4.0]])
    result = estimate(optical, warp(sar, AffineMap(georeference)), AlignConfig(spacing=48))
    seen = affine_fit.apply(georeference, result.where(checks[:, :2]))
    assert np.sqrt(((seen - checks[:, 2:]) ** 2).sum(axis=1).mean()) < 0.85


def test_real_strangers_are_rejected():
    optical, sar = real("volkov/034_opt.tif"), real("volkov/280_sar.tif")
    assert estimate(optical[:, :512, :512], sar[:, :512, :512]).status == "rejected"
