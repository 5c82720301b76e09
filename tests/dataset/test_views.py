"""Views: planted marks must lie where the geometry says, in both sensors, and nothing may depend on luck."""

import numpy as np
import pytest
import torch

from tmcnet.config import PretrainConfig, SensorConfig, SensorsConfig
from tmcnet.dataset import views
from tmcnet.dataset.loading import Tile
from tmcnet.dataset.views import View, ViewMaker, draw_patches, draw_views, patch_range

CONFIG = PretrainConfig(crop_size=48, patch_size=12, patches=3)
SENSORS = SensorsConfig(
    optical=SensorConfig(bands=["r", "g", "b"], kind="reflectance"),
    sar=SensorConfig(bands=["vv"], kind="backscatter", scale="db"),
)
VIEWS = [
    View(3, 7, 40, 31, 48, flip_x, flip_y, turns)
    for flip_x in (False, True)
    for flip_y in (False, True)
    for turns in range(4)
]


def to_tile(view, points):
    """Map view pixels (n x 2, x and y) to tile pixels."""
    return np.array([view.point_to_tile(*point) for point in points.tolist()])


def from_tile(view, points):
    """Map tile pixels (n x 2, x and y) to view pixels."""
    return np.array([view.point_from_tile(*point) for point in points.tolist()])


def coordinates(height, width):
    """An image whose two bands are the x and the y of each pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]).float()


@pytest.mark.parametrize("view", VIEWS)
def test_the_matrix_says_where_pixels_come_from(view):
    shown = view.transpose(view.cut(coordinates(64, 60)))
    inner = np.stack(np.meshgrid(np.arange(3, 45), np.arange(3, 45)), axis=-1).reshape(-1, 2)
    expected = to_tile(view, inner.astype(float))
    got = shown[:, inner[:, 1], inner[:, 0]].numpy().T
    np.testing.assert_allclose(got, expected, atol=1e-3)
    np.testing.assert_allclose(from_tile(view, expected), inner, atol=1e-9)


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_patches_show_the_same_ground(variant):
    half = (CONFIG.patch_size - 1) / 2
    for seed in range(150):
        rng = np.random.default_rng(seed)
        first, second = draw_views(rng, 64, 70, CONFIG, variant)
        corners, partners = draw_patches(rng, first, second, CONFIG.patch_size, CONFIG.patches)
        for place in (corners, partners):
            assert place.shape == (CONFIG.patches, 2)
            assert place.min() >= 0 and place.max() <= CONFIG.crop_size - CONFIG.patch_size
        ground = to_tile(first, corners + half)
        apart = np.abs(from_tile(second, ground) - (partners + half))
        assert apart.max() <= 0.5 + 1e-6


def test_a_planted_mark_is_at_the_centre_of_both_patches():
    """End to end through the rendered pixels: a blob at the ground point peaks at the centre of both patches."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first, second = draw_views(rng, 64, 64, CONFIG, "corrected")
        corners, partners = draw_patches(rng, first, second, CONFIG.patch_size, 1)
        ground = to_tile(first, corners + (CONFIG.patch_size - 1) / 2)[0]
        x, y = coordinates(64, 64)
        mark = torch.exp(-((x - ground[0]) ** 2 + (y - ground[1]) ** 2) / 4)[None]
        for view, corner in ((first, corners[0]), (second, partners[0])):
            patch = view.transpose(view.cut(mark))[0, corner[1] :, corner[0] :][
                : CONFIG.patch_size, : CONFIG.patch_size
            ]
            px, py = coordinates(CONFIG.patch_size, CONFIG.patch_size)
            centre = torch.stack([(px * patch).sum(), (py * patch).sum()]) / patch.sum()
            assert (centre - (CONFIG.patch_size - 1) / 2).abs().max() < 1.0


def test_later_centres_lie_outside_earlier_patches():
    view = View(0, 0, 64, 64, 64)
    for seed in range(50):
        corners, _ = draw_patches(np.random.default_rng(seed), view, view, 12, 4)
        for later in range(1, 4):
            inside = corners[later] + 6 - corners[:later]
            assert not ((inside >= 0) & (inside < 12)).all(axis=1).any()


def textbook_patches(rng, first, second, patch_size, count):
    """`draw_patches` with arrays and matrices, a patch at a time."""
    lowest, highest = patch_range(first, second, patch_size)
    half = (patch_size - 1) / 2
    corners = []
    for _ in range(count):
        tries = rng.integers(lowest, np.add(highest, 1), size=(32, 2))
        apart = tries[:, None] - np.array(corners, int).reshape(1, -1, 2)
        taken = ((-(patch_size // 2) <= apart) & (apart < patch_size - patch_size // 2)).all(2).any(1)
        corners.append(tries[taken.argmin()])
    centres = from_tile(second, to_tile(first, np.array(corners) + half))
    return np.array(corners), np.clip(np.rint(centres - half), 0, second.size - patch_size)


def test_patches_are_those_of_the_textbook():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        first, second = draw_views(rng, 64, 70, CONFIG, "corrected")
        state = rng.bit_generator.state
        got = draw_patches(rng, first, second, CONFIG.patch_size, 5)
        after = rng.random()
        rng.bit_generator.state = state
        expected = textbook_patches(rng, first, second, CONFIG.patch_size, 5)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert after == rng.random()


def test_range_of_equal_views_is_everything_and_of_distant_views_nothing():
    lowest, highest = patch_range(VIEWS[0], VIEWS[5], CONFIG.patch_size)
    assert tuple(lowest) == (0, 0) and tuple(highest) == (36, 36)
    far = View(0, 100, 20, 20, 48)
    lowest, highest = patch_range(VIEWS[0], far, CONFIG.patch_size)
    assert lowest[0] > highest[0] or lowest[1] > highest[1]
    with pytest.raises(ValueError, match="no patch"):
        draw_patches(np.random.default_rng(0), VIEWS[0], far, CONFIG.patch_size, 1)


def test_small_crops_and_large_patches_still_find_room(monkeypatch):
    monkeypatch.setattr(views, "CROP_AREA_SHARE", (0.05, 0.1))
    tight = PretrainConfig(crop_size=48, patch_size=48, patches=4)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        first, second = draw_views(rng, 64, 64, tight, "corrected")
        corners, partners = draw_patches(rng, first, second, 48, 4)
        assert (corners == 0).all() and (partners == 0).all()


def tiles(count=3, height=64, width=64):
    generator = torch.Generator().manual_seed(0)
    return [
        Tile(
            f"t{i}",
            {
                name: torch.randn(bands, height, width, generator=generator).clamp(-1.5, 1.5)
                for name, bands in (("optical", 3), ("sar", 1))
            },
            None,
        )
        for i in range(count)
    ]


def pairs_of(batch, other):
    """Views of each modality and corners of both batches."""
    return [(pair, other.views[name]) for name, pair in batch.views.items()] + [(batch.corners, other.corners)]


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_a_batch_depends_on_seed_and_step_alone(variant):
    make = ViewMaker(CONFIG, SENSORS, variant, 1.5)
    batch, again, later = make(tiles(), 4), make(tiles(), 4), make(tiles(), 5)
    assert list(batch.views) == ["optical", "sar"]
    for pair, other in pairs_of(batch, again):
        assert all(torch.equal(x, y) for x, y in zip(pair, other, strict=True))
    assert not torch.equal(batch.views["optical"][0], later.views["optical"][0])
    assert batch.views["optical"][0].shape == (3, 3, 48, 48) and batch.views["sar"][1].shape == (3, 1, 48, 48)
    assert batch.corners[0].shape == (3, 3, 2) and batch.corners[0].dtype == torch.int64
    assert all(torch.isfinite(x).all() for pair in batch.views.values() for x in pair)


def test_tiles_are_left_as_they_were_and_may_differ_in_size():
    some = [*tiles(2), *tiles(1, 50, 72)]
    before = [{name: image.clone() for name, image in t.images.items()} for t in some]
    for variant in ("reference", "corrected"):
        for step in range(10):
            ViewMaker(CONFIG, SENSORS, variant, 1.5)(some, step)
    for tile, images in zip(some, before, strict=True):
        assert all(torch.equal(tile.images[name], image) for name, image in images.items())


def test_both_sensors_share_the_geometry():
    """With a DEM in place of SAR (an offset only), equal images stay equal up to that offset."""
    sensors = SensorsConfig(
        optical=SensorConfig(bands=["a"], kind="elevation"), sar=SensorConfig(bands=["b"], kind="elevation")
    )
    image = torch.rand(1, 64, 64)
    batch = ViewMaker(CONFIG, sensors, "corrected", 1.5)([Tile("t", {"optical": image, "sar": image}, None)], 0)
    for optical, sar in zip(batch.views["optical"], batch.views["sar"], strict=True):
        apart = optical - sar
        torch.testing.assert_close(apart, apart.mean().expand(apart.shape), atol=1e-5, rtol=0)


def test_published_view_one_is_the_crop_alone():
    images = tiles(1)
    batch = ViewMaker(CONFIG, SENSORS, "reference", 1.5)(images, 0)
    first, image = batch.views["optical"][0], images[0].images["optical"]
    assert first.min() >= image.min() and first.max() <= image.max()


def test_a_share_of_a_batch_has_the_same_views_as_all_of_it():
    """The views of a tile depend on its place in the batch, not on the other tiles made with it."""
    make, some = ViewMaker(CONFIG, SENSORS, "corrected", 1.5), tiles(4)
    whole, share = make(some, 3), make(some[1::2], 3, [1, 3])
    for pair, other in pairs_of(whole, share):
        assert all(torch.equal(x[1::2], y) for x, y in zip(pair, other, strict=True))


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_values_to_predict_are_those_of_the_views_before_photometric_changes(variant):
    still = CONFIG.model_copy(update={"photometric": 0.0})
    plain = ViewMaker(still, SENSORS, variant, 1.5, photometric_by_sensor=True)(tiles(), 4)
    batch = ViewMaker(CONFIG, SENSORS, variant, 1.5, photometric_by_sensor=True, hidden=0)(tiles(), 4)
    assert plain.targets == {} and list(batch.targets) == ["optical", "sar"]
    for name, pair in batch.targets.items():
        for target, unchanged, view in zip(pair, plain.views[name], batch.views[name], strict=True):
            torch.testing.assert_close(target, unchanged, atol=1e-5, rtol=1e-5)
            assert not torch.allclose(target, view, atol=1e-2)


def test_pixels_without_data_are_not_to_be_predicted():
    some = tiles(1)
    some[0].images["sar"][:, :40] = 0
    batch = ViewMaker(CONFIG, SENSORS, "corrected", 1.5, hidden=0)(some, 0)
    optical, sar = (torch.stack(batch.targets[name]) for name in ("optical", "sar"))
    assert not optical.isnan().any()
    assert 0.4 < sar.isnan().float().mean() < 0.8


def test_hidden_blocks_of_one_modality_are_to_be_predicted():
    config = CONFIG.model_copy(update={"crop_size": 80})
    whole = ViewMaker(config, SENSORS, "corrected", 1.5, hidden=0)(tiles(8), 4)
    batch = ViewMaker(config, SENSORS, "corrected", 1.5, hidden=0.6)(tiles(8), 4)
    hidden = {}
    for name, pair in batch.views.items():
        hidden[name] = torch.stack([(view == 0).all(dim=1) for view in pair])
        for k, (view, target) in enumerate(zip(pair, batch.targets[name], strict=True)):
            away = (view == 0).all(dim=1, keepdim=True).expand(view.shape)
            assert torch.equal(view[~away], whole.views[name][k][~away])
            assert torch.equal(target[away], whole.targets[name][k][away]) and target[~away].isnan().all()
    assert not (hidden["optical"] & hidden["sar"]).any()
    blocks = (hidden["optical"] | hidden["sar"]).float()[..., ::32, ::32]  # one pixel of each block
    assert 0.5 < blocks.mean() < 0.7
    assert torch.equal(blocks, (hidden["optical"] | hidden["sar"]).float()[..., 15::32, 15::32])
    assert 0.2 < hidden["optical"].float().mean() < 0.4
