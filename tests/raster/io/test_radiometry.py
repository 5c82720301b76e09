import numpy as np
import pytest

from tmcnet.raster.io.radiometry import detect_scale, display_range, power_to_db, to_db, to_power


def test_scales_are_detected_from_the_values():
    assert detect_scale("uint8", 0, 255, 80) == "none"
    assert detect_scale("float32", -40, 12, -11) == "db"
    assert detect_scale("float32", 0, 900, 0.05) == "linear"
    assert detect_scale("float32", 0, 900, 80) == "amplitude"
    assert detect_scale("float32", 1, 10, 1.4) == "amplitude"  # half of a scene is brighter than 0 dB nowhere
    assert detect_scale("uint16", 0, 9000, 200) == "amplitude"
    assert detect_scale("float32", -9999, 3, 0.1) is None
    assert detect_scale("float32", -0.01, 900, 0.05) == "linear"
    assert detect_scale("float32", -0.01, 0.9, -0.005) == "db"
    assert detect_scale("int16", -99, 5, -80) is None  # tenths of decibels


@pytest.mark.parametrize("scale", ["linear", "amplitude", "db"])
def test_every_scale_comes_to_the_same_decibels(scale):
    decibels = np.array([-50.0, -20.0, 0.0, 3.0, 30.0, np.nan], "f4")
    power = 10 ** (decibels / 10)
    values = {"linear": power, "amplitude": np.sqrt(power), "db": decibels}[scale].astype("f4")
    expected = [-35, -20, 0, 3, 10, np.nan]
    np.testing.assert_allclose(to_db(values, scale, (-35, 10)), expected, atol=1e-4)
    np.testing.assert_allclose(power_to_db(to_power(values, scale), scale, (-35, 10)), expected, atol=1e-4)


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
