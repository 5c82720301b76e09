import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy import ndimage
from scipy.spatial import cKDTree

from tests.raster.register.conftest import SIZE, demo_pair
from tmcnet.config import AlignConfig
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.io.windowed import ArrayImage, Reduced, Warped, in_memory
from tmcnet.raster.io.writer import write_raster
from tmcnet.raster.register import coarse_to_fine
from tmcnet.raster.register.alignment import AffineMap, rotation_and_scale
from tmcnet.raster.register.coarse_to_fine import estimate, global_search, warp
from tmcnet.raster.register.model_selection import Selection, select_model


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


def test_a_corrected_pair_needs_no_correction(pair, found):
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


def test_a_large_held_out_rmse_is_rejected(pair, monkeypatch):
    monkeypatch.setattr(coarse_to_fine, "select_model", lambda *args: replace(select_model(*args), rmse_px=4.04))
    result = estimate(pair[0], pair[1])
    assert result.status == "rejected" and "held-out RMSE of the best model is 4.0 px" in result.reason


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


def test_a_pure_shift_selects_the_shift_model(pair):
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


def selection_of(matrix, model="affine", rmse_px=0.8, identity_rmse_px=1.2):
    return lambda *_: Selection(model, AffineMap(np.array(matrix)), rmse_px, identity_rmse_px)


CORNER = [[1.012, 0.0, -1.2], [0.0, 1.012, -1.2]]
"""A map that is extrapolated to 3.7 pixels in the lower right corner."""


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (selection_of(CORNER), "does not clearly raise the similarity"),
        (selection_of(CORNER, rmse_px=3.0), "held-out RMSE of the best model is 3.0 px"),
        (selection_of([[1, 0, 0], [0, 1, 0]], "none", 2.6, 2.6), "no model has a clearly lower held-out RMSE"),
    ],
)
def test_a_pair_in_place_keeps_its_georeference_without_a_reliable_correction(pair, monkeypatch, found, words):
    image = pair[0][2]
    monkeypatch.setattr(coarse_to_fine, "select_model", found)
    result = estimate(image, image)
    assert (result.status, result.model, result.rmse_px) == ("already_aligned", "none", found().identity_rmse_px)
    assert words in result.reason


@pytest.mark.parametrize(
    ("shift", "ratio", "status"),
    [(6.0, np.inf, "rejected"), (6.0, 2.0, "aligned"), (0.5, 2.0, "already_aligned")],
)
def test_without_a_reliable_correction_the_common_peak_decides(pair, monkeypatch, shift, ratio, status):
    image = pair[0][2]
    monkeypatch.setattr(coarse_to_fine, "select_model", selection_of([[1, 0, 9.0], [0, 1, 0]], "shift", 0.8, 6.1))
    monkeypatch.setattr(coarse_to_fine, "MIN_SHIFTED_RATIO", ratio)
    result = estimate(image, warp(image[None], shift_by(shift, 0.0))[0])
    assert (result.status, result.rmse_px) == (status, None)
    assert "px from zero" in result.reason
    if status == "aligned":
        assert result.model == "shift" and np.allclose(result.where(np.zeros((1, 2))), [[-shift, 0.0]], atol=0.2)


@pytest.mark.parametrize(("correct", "status"), [(1.2, "already_aligned"), (2.0, "aligned")])
def test_a_correction_must_raise_the_similarity_of_most_windows(pair, monkeypatch, correct, status):
    image = pair[0]
    moved = warp(image, shift_by(-2.0, 0.0))
    if status == "already_aligned":
        # a third of the scene is displaced the other way: a shift helps the rest only
        moved[:, : SIZE * 2 // 5] = warp(image, shift_by(2.0, 0.0))[:, : SIZE * 2 // 5]
    monkeypatch.setattr(coarse_to_fine, "standard_error_px", lambda *_: 0.1)
    monkeypatch.setattr(coarse_to_fine, "select_model", selection_of([[1, 0, correct], [0, 1, 0]], "shift", 0.8, 2.1))
    result = estimate(image, moved)
    assert result.status == status
    assert "does not clearly raise the similarity" in result.reason or status == "aligned"


@pytest.mark.parametrize(("error", "status"), [(0.6, "aligned"), (0.9, "already_aligned")])
def test_a_correction_below_its_standard_error_is_not_made(pair, monkeypatch, error, status):
    monkeypatch.setattr(coarse_to_fine, "standard_error_px", lambda *_: error)
    result = estimate(pair[0][2], warp(pair[0][2:3], shift_by(-2.0, 0.0))[0])
    assert result.status == status
    assert "within its uncertainty" in result.reason or status == "aligned"


@pytest.mark.parametrize(("shift", "status"), [(0.8, "already_aligned"), (1.3, "aligned")])
def test_a_correction_of_less_than_a_pixel_is_not_made(pair, shift, status):
    result = estimate(pair[0][2], warp(pair[0][2:3], shift_by(shift, 0.0))[0])
    assert result.status == status
    assert "below 1 px" in result.reason or status == "aligned"


@pytest.mark.parametrize("shores", [(80, 80), (75, 85)])
@pytest.mark.parametrize(("shift", "status"), [((0, 0), "already_aligned"), ((9, -7), "rejected")])
def test_all_windows_together_show_a_match_in_place_that_single_windows_do_not(shift, status, shores):
    rng = np.random.default_rng(3)
    common = ndimage.gaussian_filter(rng.normal(size=(160, 160)), 2.0) * 7.0
    # a flood whose soft shore moved by 10 pixels between the dates is the strongest edge of both images
    flood = [40.0 / (1.0 + np.exp((shore - np.arange(160)) / 4.0)) * (shores[0] != shores[1]) for shore in shores]
    one, two = (common + rng.normal(0, 2.6, common.shape) for _ in range(2))
    moved = np.roll(two, shift[::-1], axis=(0, 1)) + flood[1]
    result = estimate((one + flood[0]).astype(np.float32), moved.astype(np.float32))
    assert (result.status, result.model) == (status, "none"), result.reason
    assert "tie points" in result.reason and "times as high as elsewhere" in result.reason


def test_a_large_shift_with_rotation_and_scale_is_found(tmp_path):
    optical, sar, truth = demo_pair(tmp_path, "birch", displacement=0.0, size=400)
    turn = rotation_and_scale(-2.0, 1.03, 400, 400) + np.array([[0, 0, 48.0], [0, 0, -36.0]])
    result = estimate(optical, warp(sar, inverse(AffineMap(turn))))
    points = np.array([[120.0, 120.0], [280.0, 120.0], [200.0, 200.0], [120.0, 300.0], [290.0, 290.0]])
    assert result.status == "aligned"
    assert np.hypot(*(result.where(points) - AffineMap(turn)(points)).T).max() < 1.0
    assert np.abs(truth).max() == 0


def inverse(where):
    def back(points):
        found = points.copy()
        for _ in range(30):
            found = found - (where(found) - points)
        return found

    return back


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(coarse_to_fine, "WINDOW_PX", 32)
    monkeypatch.setattr(coarse_to_fine, "SPACING_PX", 16)


def bend(points, most=3.0):
    x, y = 2 * np.pi * points.T / SIZE
    return points + most * np.stack([np.sin(x) * np.cos(y), np.cos(x) * np.sin(0.7 * y)], axis=1)


def test_a_smooth_local_warp_is_followed(pair, small_windows):
    image = pair[0]
    points = np.stack(np.meshgrid(np.arange(30, 290, 20.0), np.arange(30, 290, 20.0)), -1).reshape(-1, 2)
    result = estimate(image, warp(image, inverse(bend)))
    errors = np.hypot(*(result.where(points) - bend(points)).T)
    assert (result.status, result.model, result.matrix) == ("aligned", "thin_plate", None)
    assert np.median(errors) < 0.3 and np.percentile(errors, 95) < 1.0


def test_a_displacement_that_no_model_explains_is_rejected(pair, small_windows):
    bent = warp(pair[0], inverse(lambda points: bend(points, 7.0)))
    refused = estimate(pair[0], bent, AlignConfig(models=["shift"]))
    assert refused.status == "rejected"
    assert "no model has a clearly lower held-out RMSE" in refused.reason


def test_a_shift_beyond_the_search_radius_is_not_found(pair):
    image = pair[0][2]
    moving = warp(image[None], shift_by(30.0, -25.0))[0]
    assert estimate(image, moving, AlignConfig(max_shift=4)).status == "rejected"
    assert estimate(image, moving, AlignConfig(max_shift=40)).status == "aligned"


def test_images_in_files_give_the_same_as_images_in_memory(pair, found, tmp_path):
    write_raster(tmp_path / "o.tif", pair[0], None, float("nan"))
    write_raster(tmp_path / "s.tif", pair[1], None, float("nan"))
    files = [Raster.of(tmp_path / name) for name in ("o.tif", "s.tif")]
    assert [image.shape for image in files] == [np.shape(image) for image in pair[:2]]
    assert estimate(*files).to_dict() == found.to_dict()


def test_different_grids_raise_an_error(pair):
    with pytest.raises(ValueError, match="one grid"):
        estimate(pair[0], pair[1][:, :-1])


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(1, 20, 20)).repeat(16, axis=1).repeat(16, axis=2)
    return ndimage.gaussian_filter(fields, (0, 1, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"), [(0.0, 1.0, (24.0, -18.0)), (2.0, 0.98, (-20.0, 8.0)), (-1.0, 1.02, (10.0, 22.0))]
)
def test_the_global_search_finds_shift_rotation_and_scale(scene, degrees, scale, shift):
    truth = rotation_and_scale(degrees, scale, 320, 320) + np.array([[0, 0, shift[0]], [0, 0, shift[1]]])
    back = np.linalg.inv(np.vstack([truth, [0, 0, 1]]))[:2]
    moved = Warped(ArrayImage(scene), AffineMap(back)).read(0, 0, 320, 320)
    small = [in_memory(Reduced(ArrayImage(image), 2)) for image in (scene, moved)]
    found = global_search(*small, 2, 28)
    corners = np.array([[40.0, 40], [280, 40], [40, 280], [280, 280], [160, 160]])
    assert np.abs(found(corners) - AffineMap(truth)(corners)).max() < 2.0


def test_the_global_search_without_valid_pixels_gives_the_identity(scene):
    nothing = ArrayImage(np.full_like(scene, np.nan))
    np.testing.assert_array_equal(global_search(ArrayImage(scene), nothing, 1, 6).matrix, np.eye(2, 3))


@pytest.mark.parametrize("seed", range(6))
def test_a_planted_shift_or_affine_map_is_found(seed):
    side = 288
    rng = np.random.default_rng(seed)
    pixels = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    field = cKDTree(rng.uniform(0, side, (300, 2))).query(pixels)[1].reshape(side, side)
    # the two images have the edges of fields in common, and no brightness
    one, two = (rng.random(300)[field] + rng.normal(0, noise, (side, side)) for noise in (0.02, 0.1))
    turn, scale = (0.0, 1.0) if seed % 2 else (rng.uniform(-1.5, 1.5), rng.uniform(0.98, 1.02))
    planted = rotation_and_scale(turn, scale, side, side)
    planted[:, 2] += rng.uniform(-10, 10, 2)
    back = np.linalg.inv(np.vstack([planted, [0, 0, 1]]))[:2]
    result = estimate(one.astype(np.float32), warp(two[None].astype(np.float32), AffineMap(back)))
    axis = np.arange(40.0, side - 40, 16)
    places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    assert result.status == "aligned", result.reason
    assert np.hypot(*(result.where(places) - AffineMap(planted)(places)).T).max() < 0.5


def real(name):
    root = os.environ.get("TMCNET_DATA")
    if not root:
        pytest.skip("TMCNET_DATA is not set: the real pairs are needed here")
    with rasterio.open(Path(root) / name) as dataset:
        return dataset.read().astype(np.float32)


def test_real_pair_with_checkpoints_is_brought_back_from_a_known_shift(monkeypatch):
    monkeypatch.setattr(coarse_to_fine, "SPACING_PX", 48)
    optical, sar = real("coregistration/cfog_2/optical.tif"), real("coregistration/cfog_2/sar.tif")
    table = Path(os.environ["TMCNET_DATA"]) / "coregistration/cfog_2/checkpoints.csv"
    checks = np.loadtxt(table, delimiter=",", skiprows=1)
    design = np.column_stack([checks[:, :2], np.ones(len(checks))])
    affine = np.linalg.lstsq(design, checks[:, 2:], rcond=None)[0].T
    georeference = affine - np.array([[0, 0, 6.0], [0, 0, -4.0]])
    result = estimate(optical, warp(sar, AffineMap(georeference)))
    seen = AffineMap(georeference)(result.where(checks[:, :2]))
    assert np.sqrt(((seen - checks[:, 2:]) ** 2).sum(axis=1).mean()) < 0.85


def placed_pair(name, kind):
    """Both images and the affine map through their checkpoints."""
    optical, sar = (real(f"coregistration/{name}/{image}.{kind}") for image in ("optical", "sar"))
    table = Path(os.environ["TMCNET_DATA"]) / f"coregistration/{name}/checkpoints.csv"
    checks = np.loadtxt(table, delimiter=",", skiprows=1)
    design = np.column_stack([checks[:, :2], np.ones(len(checks))])
    affine = np.linalg.lstsq(design, checks[:, 2:], rcond=None)[0].T
    return optical, np.pad(sar, ((0, 0), (0, 60), (0, 60)), constant_values=np.nan), affine


@pytest.mark.parametrize("name", ["cfog_1", "cfog_2"])
def test_real_pairs_placed_by_their_checkpoints_are_already_aligned(name):
    optical, sar, affine = placed_pair(name, "png" if name == "cfog_1" else "tif")
    rows, columns = (slice(0, 384), slice(0, 384))
    placed = warp(sar, AffineMap(affine))
    result = estimate(optical[:, rows, columns], placed[:, rows, columns])
    assert result.status == "already_aligned", result.reason


def test_a_real_pair_displaced_by_two_pixels_is_corrected():
    optical, sar, affine = placed_pair("cfog_1", "png")
    result = estimate(optical, warp(sar, AffineMap(affine - np.array([[0, 0, -1.6], [0, 0, -1.8]])))[:, :520, :528])
    assert result.status == "aligned", result.reason
    centre = np.array([[264.0, 260.0]])
    assert np.hypot(*(result.where(centre) - centre + [1.6, 1.8])[0]) < 0.8


@pytest.mark.parametrize(("column", "status"), [(60, "aligned"), (300, "rejected")])
def test_a_pair_with_few_tie_points_is_shifted_to_where_all_windows_match(column, status):
    optical, sar, affine = placed_pair("cfog_2", "tif")
    moved = warp(sar, AffineMap(affine + np.array([[0, 0, 7], [0, 0, -5]])))
    result = estimate(optical[:, 400:544, 60:204], moved[:, 400:544, column : column + 144])
    assert (result.status, result.rmse_px) == (status, None), result.reason
    assert "reliable tie points" in result.reason and "times as high as elsewhere" in result.reason
    if status == "aligned":
        assert np.allclose(result.where(np.zeros((1, 2))), [[-7.0, 5.0]], atol=0.7)


def test_a_real_pair_with_few_tie_points_at_one_side_is_not_rejected():
    optical, sar = (real(f"volkov/034_{name}.tif")[:, :256, 768:] for name in ("opt", "sar"))
    result = estimate(optical, sar)
    assert result.status == "already_aligned", result.reason


def test_real_strangers_are_rejected():
    optical, sar = real("volkov/034_opt.tif"), real("volkov/280_sar.tif")
    assert estimate(optical[:, :512, :512], sar[:, :512, :512]).status == "rejected"
