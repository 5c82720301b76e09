"""Views: planted marks must lie where the geometry says, in both sensors, and nothing may depend on luck."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import kurtosis, skew

from tmcnet.config import PretrainConfig, SensorConfig, SensorsConfig
from tmcnet.dataset import views
from tmcnet.dataset.correspondence import View, draw_patches, patch_range
from tmcnet.dataset.loading import Tile
from tmcnet.dataset.photometric import PublishedDraw, corrected, gaussian_blur, published
from tmcnet.dataset.views import ViewMaker, draw_views, render

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


def coordinates(height, width):
    """An image whose two bands are the x and the y of each pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]).float()


@pytest.mark.parametrize("view", VIEWS)
def test_the_matrix_says_where_pixels_come_from(view):
    shown = render(coordinates(64, 60), view)
    inner = np.stack(np.meshgrid(np.arange(3, 45), np.arange(3, 45)), axis=-1).reshape(-1, 2)
    expected = view.to_tile(inner.astype(float))
    got = shown[:, inner[:, 1], inner[:, 0]].numpy().T
    np.testing.assert_allclose(got, expected, atol=1e-3)
    np.testing.assert_allclose(view.from_tile(expected), inner, atol=1e-9)


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
        ground = first.to_tile(corners + half)
        apart = np.abs(second.from_tile(ground) - (partners + half))
        assert apart.max() <= 0.5 + 1e-6


def test_a_planted_mark_is_at_the_centre_of_both_patches():
    """End to end through the rendered pixels: a blob at the ground point peaks at the centre of both patches."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first, second = draw_views(rng, 64, 64, CONFIG, "corrected")
        corners, partners = draw_patches(rng, first, second, CONFIG.patch_size, 1)
        ground = first.to_tile(corners + (CONFIG.patch_size - 1) / 2)[0]
        x, y = coordinates(64, 64)
        mark = torch.exp(-((x - ground[0]) ** 2 + (y - ground[1]) ** 2) / 4)[None]
        for view, corner in ((first, corners[0]), (second, partners[0])):
            patch = render(mark, view)[0, corner[1] :, corner[0] :][: CONFIG.patch_size, : CONFIG.patch_size]
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
    centres = second.from_tile(first.to_tile(np.array(corners) + half))
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


@pytest.mark.parametrize("kind", ["reflectance", "backscatter", "elevation"])
def test_corrected_changes_are_mild(kind):
    image = torch.rand(3, 32, 32) * 2 - 1
    results = [corrected(image, kind, np.random.default_rng(i), 1.5) for i in range(30)]
    correlations = []
    for result in results:
        assert torch.isfinite(result).all() and not torch.equal(result, image)
        correlations.append(np.corrcoef(result.flatten(), image.flatten())[0, 1])
    assert np.median(correlations) > 0.8


@pytest.mark.parametrize("kind", ["reflectance", "backscatter", "elevation"])
def test_no_strength_changes_nothing(kind):
    image = torch.rand(3, 32, 32) * 2 - 1
    for i in range(30):
        result = corrected(image, kind, np.random.default_rng(i), 1.5, strength=0.0)
        assert torch.allclose(result, image, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blur_equals_the_textbook(layout):
    image = torch.rand(2, 3, 9, 11, dtype=torch.float64)
    expected = gaussian_filter(image.numpy(), (0, 0, 1.1, 1.1), mode="mirror", radius=(0, 0, 2, 2))
    found = gaussian_blur(image.contiguous(memory_format=layout), 5, 1.1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    turned = gaussian_blur(image.transpose(2, 3), 5, 1.1).transpose(2, 3)
    np.testing.assert_allclose(turned.numpy(), expected, atol=1e-12)


def test_reflectance_changes_by_a_power():
    image = torch.rand(2, 16, 16, dtype=torch.float64) * 3 - 1.5
    image[0, 0] = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64)
    for seed in range(10):
        rng, again = np.random.default_rng(seed), np.random.default_rng(seed)
        found = corrected(image, "reflectance", rng, 1.5)
        offset, gamma = again.uniform(-0.2, 0.2), np.exp(again.uniform(-0.22, 0.22))
        contrast = np.exp(again.uniform(-0.22, 0.22))
        share = ((image + offset + 1.5) / 3).clamp(0, 1)
        expected = (share**gamma * 3 - 1.5) * contrast
        if again.random() < 0.3 or again.random() < 0.1:
            continue  # blurred, or a band left out
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_published_changes():
    image = torch.rand(4, 16, 16) * 2 - 1
    grey = published(image, PublishedDraw(0, 0, 0, 2, 0), 1.5)
    assert torch.equal(grey, image[2].expand(4, -1, -1))
    nothing = published(image, PublishedDraw(0, 0, 0, None, 0), 1.5)
    assert torch.equal(nothing, image)
    brighter = published(image, PublishedDraw(0, 0, 0.05, None, 0), 1.5)
    torch.testing.assert_close(brighter[:3].amax(0), image[:3].amax(0) + 0.15, atol=1e-4, rtol=0)
    torch.testing.assert_close(brighter[3], image[3], atol=1e-5, rtol=0)
    one = published(image[:1], PublishedDraw(60, 0, 0.05, 2, 7), 1.5)
    assert one.shape == (1, 16, 16) and torch.isfinite(one).all()
    turned = published(image, PublishedDraw(120, 0, 1e-9, None, 0), 1.5)
    torch.testing.assert_close(turned[1], image[0], atol=1e-4, rtol=0)  # red turned by a third becomes green


def test_a_share_of_a_batch_has_the_same_views_as_all_of_it():
    """What a tile is shown as depends on its place in the batch, not on the tiles that are made beside it."""
    make, some = ViewMaker(CONFIG, SENSORS, "corrected", 1.5), tiles(4)
    whole, share = make(some, 3), make(some[1::2], 3, [1, 3])
    for pair, other in pairs_of(whole, share):
        assert all(torch.equal(x[1::2], y) for x, y in zip(pair, other, strict=True))


def test_speckle_is_close_to_normal_and_independent_of_the_ground():
    flat = torch.zeros(1, 300, 300)
    for seed in range(3):
        rng, again = np.random.default_rng(seed), np.random.default_rng(seed)
        speckle = corrected(flat, "backscatter", rng, 1.5).flatten().numpy()
        offset, size = again.uniform(-0.2, 0.2), again.uniform(0, 0.15)
        assert speckle.mean() == pytest.approx(offset, abs=0.01 * size + 1e-6)
        assert speckle.std() == pytest.approx(size, rel=0.01)
        assert abs(skew(speckle)) < 0.03 and abs(kurtosis(speckle)) < 0.35
        assert abs(np.corrcoef(speckle[:-1], speckle[1:])[0, 1]) < 0.02
