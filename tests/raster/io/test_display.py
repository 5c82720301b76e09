import numpy as np

from tmcnet.raster.io.display import display_range


def test_clouds_do_not_darken_the_land():
    random = np.random.default_rng(0)
    land, cloud = random.normal(1000, 100, 8500), random.normal(8000, 300, 1500)
    low, high = display_range(np.concatenate([land, cloud]))
    assert 750 < low < 850
    assert 1200 < high < 1700


def test_without_a_bright_minority_the_percentiles_hold():
    values = np.linspace(0, 100, 1001)
    assert np.allclose(display_range(values), (2, 98))


def test_a_constant_band_has_a_range():
    assert display_range(np.full(5, 3.0)) == (3.0, 4.0)
