"""Turns of hue, and the colour shift of the published views against the slow way."""

from functools import partial

import kornia.color
import numpy as np
import pytest
import torch

from tmcnet.config import PretrainConfig, SensorConfig, SensorsConfig
from tmcnet.dataset.loading import Tile
from tmcnet.dataset.photometric import corrected, hue_turn, shift_hsv
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
    return (hue_turn(len(image), colours, angle) @ image.flatten(1)).view(image.shape)


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
        corrected(start, "reflectance", np.random.default_rng(0), 1.5, hue=hue)
        for start, hue in ((image, hue_turn(3, [2, 1, 0], 0.3)), (turn_hue(image, [2, 1, 0], 0.3), None))
    )
    close(found, expected)
    assert (found - corrected(image, "reflectance", np.random.default_rng(0), 1.5)).abs().mean() > 0.005


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
    assert bool(without.colours) is turns
    names = [bands[place] for place in without.colours]
    assert names == (["red", "green", "blue"] if turns else [])
    changed = [
        not torch.equal(a, b) for a, b in zip(views_of(bands, 0, kind), views_of(bands, 90, kind), strict=True)
    ]
    assert changed == [turns, turns]


def test_the_strength_of_all_changes_is_that_of_hue_too():
    still = views_of(["red", "green", "blue"], 90, strength=0.0)
    for view, plain in zip(still, views_of(["red", "green", "blue"], 0, strength=0.0), strict=True):
        torch.testing.assert_close(view, plain)
