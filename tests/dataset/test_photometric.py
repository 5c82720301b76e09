"""Photometric changes: by sensor against their formulas, the published colour shift against kornia."""

from functools import partial

import kornia.color
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import kurtosis, skew

from tmcnet.config import PretrainConfig, SensorConfig, SensorsConfig
from tmcnet.dataset.loading import Tile
from tmcnet.dataset.photometric import (
    PublishedDraw,
    change_as_published,
    change_by_sensor,
    gaussian_blur,
    hue_rotation,
    shift_hsv,
)
from tmcnet.dataset.views import ViewMaker

SHIFTS = [(0.0, 0.0, 0.0), (60.0, 0.0, 0.0), (-44.0, 0.015, -0.05), (170.0, -0.3, 0.2), (-180.0, 1.0, -1.0)]


def slow_shift(image, hue, saturation, value):
    """The same by kornia, with its masks."""
    h, s, v = kornia.color.rgb_to_hsv(image)
    turned = (h + np.deg2rad(hue)) % (2 * np.pi)
    return kornia.color.hsv_to_rgb(torch.stack([turned, (s + saturation).clamp(0, 1), (v + value).clamp(0, 1)]))


def pictures():
    """Noise, 8-bit values with many ties, and greys, black and white."""
    random = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 40, 30, generator=random, dtype=torch.float64)
    levels = torch.randint(0, 5, (3, 40, 30), generator=random) / 4.0
    grey = torch.linspace(0, 1, 30, dtype=torch.float64).expand(3, 40, 30)
    return [noise, levels.double(), grey]


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_colour_shift_equals_the_slow_way(shift):
    for image in pictures():
        before = image.clone()
        torch.testing.assert_close(shift_hsv(image, *shift), slow_shift(image, *shift), rtol=0, atol=1e-7)
        assert torch.equal(image, before)
        single = shift_hsv(image.float(), *shift)
        torch.testing.assert_close(single, slow_shift(image, *shift).float(), rtol=0, atol=1e-5)


close = partial(torch.testing.assert_close, rtol=0, atol=1e-5)


def turn_hue(image, colours, angle):
    return (hue_rotation(len(image), colours, angle) @ image.flatten(1)).view(image.shape)


def test_a_third_of_a_circle_moves_the_colours_by_one_band():
    image = torch.rand(5, 6, 7) * 3 - 1.5
    red, green, blue = colours = [3, 0, 2]
    turned = turn_hue(image, colours, 2 * np.pi / 3)
    for source, target in ((red, green), (green, blue), (blue, red)):
        close(turned[target], image[source])
    assert torch.equal(turned[[1, 4]], image[[1, 4]])


def test_a_turn_keeps_grey_and_brightness_and_can_be_undone():
    image = torch.rand(3, 6, 7) * 3 - 1.5
    grey = image[:1].expand(3, -1, -1)
    close(turn_hue(grey, [0, 1, 2], 0.4), grey)
    turned = turn_hue(image, [0, 1, 2], 0.4)
    close(turned.mean(0), image.mean(0))
    assert (turned - image).abs().max() > 0.1
    close(turn_hue(turned, [0, 1, 2], -0.4), image)


def test_hue_turns_before_all_else_changes():
    image = torch.rand(3, 20, 21) - 0.5
    found, expected = (
        change_by_sensor(start, "reflectance", np.random.default_rng(0), 1.5, hue=hue)
        for start, hue in ((image, hue_rotation(3, [2, 1, 0], 0.3)), (turn_hue(image, [2, 1, 0], 0.3), None))
    )
    close(found, expected)
    assert (found - change_by_sensor(image, "reflectance", np.random.default_rng(0), 1.5)).abs().mean() > 0.005


def views_of(bands, hue, kind="reflectance", strength=1.0):
    """Both optical views of a tile."""
    sensors = SensorsConfig(
        optical=SensorConfig(bands=bands, kind=kind), sar=SensorConfig(bands=["vv"], kind="elevation")
    )
    image = torch.rand(len(bands), 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    config = PretrainConfig(crop_size=48, patch_size=12, patches=2, hue=hue, photometric=strength)
    tile = Tile("t", {"optical": image, "sar": image[:1]}, None)
    return ViewMaker(config, sensors, "corrected", 1.5)([tile], 0).views["optical"]


@pytest.mark.parametrize(
    ("bands", "kind", "turns"),
    [
        (["blue", "green", "red", "nir"], "reflectance", True),
        (["red", "green", "blue"], "elevation", False),
        (["red", "green", "swir"], "reflectance", False),
    ],
)
def test_hue_turns_where_the_bands_have_colours_by_name(bands, kind, turns):
    without = ViewMaker(
        PretrainConfig(hue=20),
        SensorsConfig(optical=SensorConfig(bands=bands, kind=kind), sar=SensorConfig(bands=["vv"], kind="elevation")),
        "corrected",
        1.5,
    )
    assert bool(without.rgb) is turns
    names = [bands[place] for place in without.rgb]
    assert names == (["red", "green", "blue"] if turns else [])
    changed = [
        not torch.equal(a, b) for a, b in zip(views_of(bands, 0, kind), views_of(bands, 90, kind), strict=True)
    ]
    assert changed == [turns, turns]


def test_the_strength_of_all_changes_is_that_of_hue_too():
    still = views_of(["red", "green", "blue"], 90, strength=0.0)
    for view, plain in zip(still, views_of(["red", "green", "blue"], 0, strength=0.0), strict=True):
        torch.testing.assert_close(view, plain)


@pytest.mark.parametrize("kind", ["reflectance", "backscatter", "elevation"])
def test_corrected_changes_are_mild(kind):
    image = torch.rand(3, 32, 32) * 2 - 1
    results = [change_by_sensor(image, kind, np.random.default_rng(i), 1.5) for i in range(30)]
    correlations = []
    for result in results:
        assert torch.isfinite(result).all() and not torch.equal(result, image)
        correlations.append(np.corrcoef(result.flatten(), image.flatten())[0, 1])
    assert np.median(correlations) > 0.8


@pytest.mark.parametrize("kind", ["reflectance", "backscatter", "elevation"])
def test_no_strength_changes_nothing(kind):
    image = torch.rand(3, 32, 32) * 2 - 1
    for i in range(30):
        result = change_by_sensor(image, kind, np.random.default_rng(i), 1.5, strength=0.0)
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
        found = change_by_sensor(image, "reflectance", rng, 1.5)
        offset, gamma = again.uniform(-0.2, 0.2), np.exp(again.uniform(-0.22, 0.22))
        contrast = np.exp(again.uniform(-0.22, 0.22))
        share = ((image + offset + 1.5) / 3).clamp(0, 1)
        expected = (share**gamma * 3 - 1.5) * contrast
        if again.random() < 0.3 or again.random() < 0.1:
            continue  # blurred, or a band left out
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_published_changes():
    image = torch.rand(4, 16, 16) * 2 - 1
    grey = change_as_published(image, PublishedDraw(0, 0, 0, 2, 0), 1.5)
    assert torch.equal(grey, image[2].expand(4, -1, -1))
    nothing = change_as_published(image, PublishedDraw(0, 0, 0, None, 0), 1.5)
    assert torch.equal(nothing, image)
    brighter = change_as_published(image, PublishedDraw(0, 0, 0.05, None, 0), 1.5)
    torch.testing.assert_close(brighter[:3].amax(0), image[:3].amax(0) + 0.15, atol=1e-4, rtol=0)
    torch.testing.assert_close(brighter[3], image[3], atol=1e-5, rtol=0)
    one = change_as_published(image[:1], PublishedDraw(60, 0, 0.05, 2, 7), 1.5)
    assert one.shape == (1, 16, 16) and torch.isfinite(one).all()
    turned = change_as_published(image, PublishedDraw(120, 0, 1e-9, None, 0), 1.5)
    torch.testing.assert_close(turned[1], image[0], atol=1e-4, rtol=0)  # red turned by a third becomes green


def test_speckle_is_close_to_normal_and_independent_of_the_ground():
    flat = torch.zeros(1, 300, 300)
    for seed in range(3):
        rng, again = np.random.default_rng(seed), np.random.default_rng(seed)
        speckle = change_by_sensor(flat, "backscatter", rng, 1.5).flatten().numpy()
        offset, size = again.uniform(-0.2, 0.2), again.uniform(0, 0.15)
        assert speckle.mean() == pytest.approx(offset, abs=0.01 * size + 1e-6)
        assert speckle.std() == pytest.approx(size, rel=0.01)
        assert abs(skew(speckle)) < 0.03 and abs(kurtosis(speckle)) < 0.35
        assert abs(np.corrcoef(speckle[:-1], speckle[1:])[0, 1]) < 0.02


CONFIG = PretrainConfig(crop_size=48, patch_size=12, patches=2)
SENSORS = SensorsConfig(
    optical=SensorConfig(bands=["a"], kind="reflectance"),
    sar=SensorConfig(bands=["b"], kind="backscatter", scale="db"),
)
CLIP = 1.5


def makes(variant, by_sensor):
    """Both views of both sensors of tiles that are the same to both."""
    images = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tiles = [Tile(f"t{i}", {"optical": image, "sar": image}, None) for i, image in enumerate(images)]
    batch = ViewMaker(CONFIG, SENSORS, variant, CLIP, by_sensor)(tiles, 0)
    return batch.views["optical"], batch.views["sar"]


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_published_changes_are_the_same_for_both_sensors(variant):
    optical, sar = makes(variant, False)
    assert torch.equal(optical[0], sar[0])
    assert torch.equal(optical[1], sar[1])


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_changes_by_sensor_differ_in_every_view(variant):
    optical, sar = makes(variant, True)
    for one, other in zip(optical, sar, strict=True):
        assert not any(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_without_a_choice_the_variant_decides():
    for variant, by_sensor in (("reference", False), ("corrected", True)):
        for chosen, own in zip(makes(variant, by_sensor), makes(variant, None), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(chosen, own, strict=True))
