"""What looks like no data, and what does not, in small images."""

import numpy as np
import pytest

from tmcnet.raster.inventory.fill import Lattice

SIDE = 64
LEFT, INSIDE = np.s_[:, :12], np.s_[20:40, 20:40]
BANDS = ["red", "nir", "swir"]


def image(dtype="f4"):
    return np.random.default_rng(0).uniform(200, 250 if dtype == "u1" else 3000, (3, SIDE, SIDE)).round()


def found(values, dtype="f4"):
    fill = Lattice(1, values.astype("f4"), dtype == "u1").undeclared_fill(BANDS[: len(values)])
    return "" if fill is None else f"{fill.share:.3f} {fill.what}"


@pytest.mark.parametrize(
    ("bands", "place", "value", "what"),
    [
        (np.s_[:], LEFT, [[0], [0], [0]], "0.188 are 0 in all bands, connected to the edge"),
        (np.s_[:], LEFT, [[0], [-1], [7]], "0.188 are 0 in red, -1 in nir, 7 in swir, connected to the edge"),
        (np.s_[1:2], LEFT, [[0]], "0.188 are 0 in band nir, connected to the edge"),
        (np.s_[:], INSIDE, [[0], [0], [0]], "0.098 are 0 in all bands"),
        (np.s_[:], INSIDE, [[-9999]] * 3, "0.098 are -9999 in all bands, far from all other values"),
        (np.s_[2:], INSIDE, [[65535]], "0.098 are 65535 in band swir, far from all other values"),
        (np.s_[1:2], INSIDE, [[900]], ""),
        (np.s_[:], np.s_[:2, :2], [[0]] * 3, ""),
    ],
)
def test_fill_is_found_by_place_or_value(bands, place, value, what):
    values = image()
    values[bands][:, *place] = np.array(value)[..., None]
    assert found(values) == what


def test_a_collar_that_compression_changed_is_found_around_declared_zeros():
    values = image("u1")
    values[:, *LEFT] = np.random.default_rng(1).integers(0, 4, (3, SIDE, 12))
    assert found(values, "u1") == "0.188 are within 3 of 0 in all bands, connected to the edge"
    values[:, :, :6] = np.nan
    assert found(values, "u1") == "0.094 are within 3 of 0 in all bands, connected to the edge"
    values[:, *LEFT] = 255
    assert found(values, "u1") == "0.188 are 255 in all bands, connected to the edge"


def test_a_piece_of_the_lowest_value_of_one_band_is_fill_but_clipped_noise_is_not():
    values = image()[:1]
    values[0, np.random.default_rng(1).random((SIDE, SIDE)) < 0.05] = 0
    assert found(values) == ""
    values[:, *INSIDE] = 0
    assert found(values).endswith(" are 0 in all bands")


def test_few_grey_levels_are_no_fill():
    assert found(np.random.default_rng(0).integers(2, 9, (2, SIDE, SIDE))) == ""


def test_a_mask_among_the_bands_is_found():
    values = image()
    values[2] = 65535 * (values[2] > 300)
    assert list(Lattice(1, values.astype("f4")).two_valued()) == [(2, 0, 65535)]
    assert not list(Lattice(1, values[2:].astype("f4")).two_valued())
