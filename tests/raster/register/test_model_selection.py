import numpy as np
import pytest

from tmcnet.raster.register.alignment import AffineMap
from tmcnet.raster.register.model_selection import (
    BENDING_MODELS,
    Correspondences,
    assign_folds,
    evaluate_candidates,
    fit_model,
    held_out_residuals,
    select_model,
    standard_error_px,
)

SHAPE = (800, 1000)
ALL = ["shift", "affine", "quadratic", "thin_plate"]


def correspondences(where, noise=0.2, number=300, buffer=64.0, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.uniform(0, 1, (number, 2)) * [SHAPE[1], SHAPE[0]]
    return points(source, where(source) + rng.normal(0, noise, source.shape), buffer=buffer)


def points(source, target, shape=SHAPE, buffer=64.0):
    return Correspondences(source, target, np.ones(len(source)), shape, 128.0, buffer, 4.0)


def quadratic(points):
    x, y = (points - [500, 400]).T / 500
    return points + np.stack([3 * x * x - 2 * y, 2 * x * y + 1], axis=1)


def wave(points):
    x, y = 2 * np.pi * points.T / 700
    return points + 4 * np.stack([np.sin(x) * np.cos(y), np.cos(1.3 * x)], axis=1)


TRUTHS = {
    "none": lambda p: p,
    "shift": lambda p: p + np.array([2.0, -1.0]),
    "affine": AffineMap(np.array([[1.002, -0.004, 1.0], [0.003, 0.997, 2.0]])),
    "quadratic": quadratic,
    "thin_plate": wave,
}


@pytest.mark.parametrize("model", TRUTHS)
def test_the_stiffest_model_with_a_low_held_out_rmse_is_selected(model):
    choice = select_model(correspondences(TRUTHS[model]), ALL)
    assert choice.model == model
    assert isinstance(choice.where, AffineMap) == (model not in BENDING_MODELS)
    rng = np.random.default_rng(9)
    points = rng.uniform(0.05, 0.95, (200, 2)) * [SHAPE[1], SHAPE[0]]
    assert np.median(np.hypot(*(choice.where(points) - TRUTHS[model](points)).T)) < 0.2
    noise = 0.2 * np.sqrt(2)
    assert 0.8 * noise < choice.rmse_px < (2.0 if model == "thin_plate" else 1.35) * noise
    assert choice.identity_rmse_px >= choice.rmse_px


def test_a_bend_narrower_than_held_out_blocks_is_followed():
    # in an image of 500 pixels, blocks with their buffers are wider than half a wave
    where = np.stack(np.meshgrid(*[np.arange(48.0, 460, 32)] * 2), -1).reshape(-1, 2)
    x, y = 2 * np.pi * where.T / 360
    moves = 5.6 * np.stack([np.sin(x + 1) * np.cos(y), np.cos(x) * np.sin(y + 2)], axis=1)
    noise = np.random.default_rng(2).normal(0, 0.4, where.shape)
    choice = select_model(points(where, where + moves + noise, (500, 500)), ALL)
    assert choice.model == "thin_plate" and choice.rmse_px < 0.4 * choice.identity_rmse_px
    assert np.median(np.hypot(*(choice.where(where) - where - moves).T)) < 0.5


def test_only_allowed_models_are_selected():
    assert select_model(correspondences(wave), ["shift", "affine"]).model in ("none", "shift", "affine")
    assert select_model(correspondences(quadratic), ["quadratic"]).model == "quadratic"
    names = [c.model for c in evaluate_candidates(correspondences(wave), ["shift", "quadratic"])]
    assert names == ["none", "shift", "quadratic"]


def test_a_correction_with_little_gain_is_not_selected():
    assert select_model(correspondences(lambda p: p + np.array([0.4, 0.0]), noise=1.0), ALL).model == "none"


def test_neighbouring_blocks_are_in_different_folds():
    x, y = np.meshgrid(np.arange(64.0, 1000, 128), np.arange(64.0, 800, 128))
    folds = assign_folds(points(np.column_stack([x.ravel(), y.ravel()]), np.zeros((x.size, 2))))[0]
    table = folds.reshape(x.shape)
    assert (table[:, 1:] != table[:, :-1]).all() and (table[1:] != table[:-1]).all()
    assert set(np.unique(table)) == set(range(5))


def test_a_scene_smaller_than_two_blocks_has_several_folds():
    # all points would be in one block of 256 px, and no model could be cross-validated
    rng = np.random.default_rng(6)
    source = rng.uniform(64, 224, (40, 2))
    target = source + np.array([5.0, 3.0]) + rng.normal(0, 0.2, source.shape)
    small = Correspondences(source, target, np.ones(40), (288, 288), 256.0, 0.0, 6.0)
    assert len(np.unique(assign_folds(small)[0])) >= 3
    assert select_model(small, ALL).model == "shift"


def test_correlated_errors_do_not_select_a_bending_model():
    # 8 points at each of many places have the same error, like overlapping windows
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 1, (60, 2)) * [SHAPE[1], SHAPE[0]]
    source = np.repeat(places, 8, axis=0) + rng.uniform(-25, 25, (480, 2))
    target = source + np.array([5.0, 3.0]) + np.repeat(rng.normal(0, 1.0, (60, 2)), 8, axis=0)
    assert select_model(points(source, target), ALL).model == "shift"


def test_a_gain_in_one_corner_only_does_not_select_a_bending_model():
    rng = np.random.default_rng(4)
    source = rng.uniform(0, 1, (300, 2)) * [SHAPE[1], SHAPE[0]]
    target = source + np.array([5.0, 3.0]) + rng.normal(0, 0.3, source.shape)
    corner = (source < 128).all(axis=1)
    target[corner] += 3.0
    assert 2 < corner.sum() < 12
    assert select_model(points(source, target), ALL).model in ("shift", "affine")


@pytest.mark.parametrize("model", ["affine", "quadratic", "thin_plate"])
def test_points_of_low_weight_do_not_bend_the_map(model):
    good = correspondences(TRUTHS["affine"], noise=0.0)
    wrong = np.arange(300) % 3 == 0
    target = np.where(wrong[:, None], good.target + 1.5, good.target)
    equal, weighted = (
        Correspondences(good.source, target, weight, SHAPE, 128.0, 64.0, 4.0)
        for weight in (np.ones(300), np.where(wrong, 1e-4, 1.0))
    )
    off = [np.hypot(*(fit_model(e, model, 0.01)(good.source) - good.target).T).mean() for e in (equal, weighted)]
    assert off[0] > 0.5 and off[1] < 0.02


def test_few_points_or_a_small_scene_select_a_stiff_model():
    few = correspondences(TRUTHS["shift"], number=14)
    assert select_model(few, ALL).model == "shift"
    small = points(few.source / 10, few.source / 10 + 2.0, (80, 100))
    assert np.isinf(held_out_residuals(small, np.zeros(14, int), "thin_plate", 0.1)).all()


def test_a_spline_does_not_diverge_far_from_all_points():
    whole = correspondences(wave, noise=0.3)
    chosen = select_model(whole.subset(whole.source[:, 0] < 600), ["thin_plate"])
    assert chosen.model == "thin_plate"
    rim = np.column_stack([np.full(50, 950.0), np.linspace(20, 780, 50)])
    inside = np.column_stack([np.full(50, 400.0), np.linspace(60, 740, 50)])
    assert np.hypot(*(chosen.where(rim) - rim).T).max() < 20
    assert np.median(np.hypot(*(chosen.where(inside) - wave(inside)).T)) < 0.3


def test_the_standard_error_is_that_of_the_map_in_repeated_samples():
    samples = [correspondences(TRUTHS["affine"], noise=0.5, seed=seed) for seed in range(30)]
    places = np.stack(np.meshgrid(np.linspace(0, 999, 9), np.linspace(0, 799, 9)), -1).reshape(-1, 2)
    errors = [fit_model(sample, "affine")(places) - TRUTHS["affine"](places) for sample in samples]
    true = np.sqrt((np.array(errors) ** 2).sum(axis=2).mean())
    assert np.median([standard_error_px(sample, "affine") for sample in samples]) == pytest.approx(true, rel=0.3)


def test_points_in_one_part_of_a_scene_say_little_about_the_rest():
    whole = correspondences(TRUTHS["affine"], noise=0.5)
    part = whole.subset((whole.source < 350).all(axis=1))
    assert standard_error_px(part, "affine") > 5 * standard_error_px(whole, "affine")
    assert standard_error_px(whole.subset((whole.source < 100).all(axis=1)), "affine") == np.inf
