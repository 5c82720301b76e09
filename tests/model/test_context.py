"""Context features of pixels."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tmcnet.config import ContextConfig
from tmcnet.model import context
from tmcnet.model.context import MIN_DEVIATION, ContextFeatures

WINDOWS = [3, 5, 9]
CONFIG = ContextConfig(windows=WINDOWS, relative_window=7)


def around(image, window, row, column):
    """The pixels with data in a window, C x P."""
    reach = window // 2
    rows, columns = (slice(max(place - reach, 0), place + reach + 1) for place in (row, column))
    near = image[:, rows, columns].reshape(len(image), -1)
    return near[:, (near != 0).any(axis=0)]


def slow_features(images, row, column):
    """The features of one pixel, by looking at every neighbour."""
    bands = [image[:, row, column] for image in images]
    known = np.concatenate([np.full(len(here), here.any()) for here in bands])
    values = np.concatenate(bands)
    pairs = [(i, j) for i in range(len(values)) for j in range(i + 1, len(values))]
    parts = [values, [(values[i] - values[j]) * known[i] * known[j] for i, j in pairs]]
    statistics = {}
    for window in (*WINDOWS, 7):
        near = [around(image, window, row, column) for image in images]
        statistics[window] = [
            np.concatenate([of(n, axis=1) if n.size else np.zeros(len(n)) for n in near]) for of in (np.mean, np.std)
        ]
    parts += [values for window in WINDOWS for values in statistics[window]]
    mean, deviation = statistics[7]
    return np.concatenate([*parts, known * (values - mean) / (deviation + MIN_DEVIATION)])


def draw(seed, *shape):
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


def test_features_are_those_of_a_loop_over_pixels():
    random = np.random.default_rng(0)
    images = random.uniform(-1.5, 1.5, (3, 9, 11)), random.uniform(-1.5, 1.5, (1, 9, 11))
    images[0][0, 2, 2] = 0  # one band only: the pixel still holds data
    images[0][:, 4:, 6:] = 0
    images[1][:, :5, :] = 0
    tensors = [torch.from_numpy(image).float()[None] for image in images]
    features = ContextFeatures(CONFIG)
    found = features(*tensors)[0]
    assert len(found) == features.count(4)
    for row, column in np.ndindex(9, 11):
        expected = slow_features([t[0].numpy().astype(float) for t in tensors], row, column)
        np.testing.assert_allclose(found[:, row, column], expected, atol=5e-6)


def test_large_windows_are_computed_at_every_fourth_pixel_and_interpolated_between():
    random = np.random.default_rng(1)
    image = random.uniform(-1.5, 1.5, (2, 26, 30))
    image[:, 8:16, 8:16] = 0
    config = ContextConfig(windows=[15], differences=False, relative_window=None)
    found = ContextFeatures(config)(torch.from_numpy(image).float()[None])[0, 2:].double().numpy()
    for row, column in [(0, 0), (12, 8), (24, 28)]:
        near = around(image, 15, row, column)
        expected = np.concatenate([near.mean(axis=1), near.std(axis=1)])
        np.testing.assert_allclose(found[:, row, column], expected, atol=1e-5)
    np.testing.assert_allclose(found[:, 12, 9], 0.75 * found[:, 12, 8] + 0.25 * found[:, 12, 12], atol=1e-6)
    np.testing.assert_allclose(found[:, 24:, 28:], found[:, 24:25, 28:29].repeat(2, 1).repeat(2, 2), atol=1e-6)


def test_an_even_area_has_no_deviation_and_a_hidden_sensor_no_features():
    config = ContextConfig(windows=[3, 127], differences=False, relative_window=255)
    optical, hidden = torch.full((1, 3, 200, 200), 1.4), torch.zeros(1, 2, 200, 200)
    found = ContextFeatures(config)(optical, hidden)[0]
    bands, mean_3, deviation_3, mean_127, deviation_127, relative = torch.split(found, 5)
    for mean in (mean_3, mean_127):
        torch.testing.assert_close(mean[:3], optical[0])
    assert not deviation_3.any() and not deviation_127.any()
    assert relative.abs().max() < 1e-5
    assert not any(part[3:].any() for part in (bands, mean_3, mean_127, relative))


def test_a_place_has_the_same_features_in_every_window_that_covers_the_reach():
    features = ContextFeatures(ContextConfig(windows=[3, 31], relative_window=63))
    assert features.reach == 31 + 3  # up to the next of every fourth pixel
    scene = draw(0, 3, 200, 150)
    whole, part = features(scene), features(scene[..., 40:160, 20:140])
    torch.testing.assert_close(part[..., 34:-34, 34:-34], whole[..., 74:126, 54:106], atol=1e-6, rtol=0)
    assert (part[..., 30, 40] - whole[..., 70, 60]).abs().max() > 1e-4


def test_relative_bands_do_not_depend_on_the_brightness_of_an_image():
    features = ContextFeatures(ContextConfig(windows=[], differences=False, relative_window=255))
    scene = draw(1, 2, 60, 60)
    brighter = 3 * scene + 2
    found = [features(image)[0, 2:] for image in (scene, brighter)]
    torch.testing.assert_close(*found, atol=0.1, rtol=0.05)


def test_images_do_not_influence_each_other():
    features, images = ContextFeatures(CONFIG), torch.cat([draw(seed, 3, 20, 17) for seed in range(3)])
    together = features(images)
    torch.testing.assert_close(together[1:2], features(images[1:2]), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"windows": [3, 4]}, "odd"), ({"relative_window": 100}, "odd"), ({"windows": [3, 3]}, "twice")],
)
def test_windows_that_cannot_be_are_named(values, reason):
    with pytest.raises(ValidationError, match=reason):
        ContextConfig(**values)


def test_large_images_are_summed_in_parts(monkeypatch):
    """The parts of a long axis give what one product gives, at an edge of a part and of the image too."""
    features, image = ContextFeatures(ContextConfig(windows=[3, 7, 15, 31], relative_window=63)), draw(4, 2, 75, 101)
    whole = features(image)
    monkeypatch.setattr(context, "MAX_BAND", 16)
    assert len(context._bands(75, 31, 4)) == 5
    torch.testing.assert_close(features(image), whole, atol=2e-6, rtol=1e-5)
