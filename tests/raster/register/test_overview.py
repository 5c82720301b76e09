import numpy as np
import pytest
from scipy import ndimage

from tmcnet.raster.io.windowed import ArrayImage, Displaced, Reduced, in_memory
from tmcnet.raster.register.deformation import AffineMap
from tmcnet.raster.register.overview import about_centre, enlarged, overview


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(1, 20, 20)).repeat(16, axis=1).repeat(16, axis=2)
    return ndimage.gaussian_filter(fields, (0, 1, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"), [(0.0, 1.0, (24.0, -18.0)), (2.0, 0.98, (-20.0, 8.0)), (-1.0, 1.02, (10.0, 22.0))]
)
def test_shift_rotation_and_scale_are_found(scene, degrees, scale, shift):
    truth = about_centre(degrees, scale, 320, 320) + np.array([[0, 0, shift[0]], [0, 0, shift[1]]])
    back = np.linalg.inv(np.vstack([truth, [0, 0, 1]]))[:2]
    moved = Displaced(ArrayImage(scene), AffineMap(back)).read(0, 0, 320, 320)
    small = [in_memory(Reduced(ArrayImage(image), 2)) for image in (scene, moved)]
    found = enlarged(overview(*small, 16), 2)
    corners = np.array([[40.0, 40], [280, 40], [40, 280], [280, 280], [160, 160]])
    assert np.abs(AffineMap(found)(corners) - AffineMap(truth)(corners)).max() < 2.0


def test_nothing_to_compare_means_no_shift(scene):
    nothing = ArrayImage(np.full_like(scene, np.nan))
    np.testing.assert_array_equal(overview(ArrayImage(scene), nothing, 8), np.eye(2, 3))


def test_enlarging_keeps_pixel_centres():
    # pixel 0 of the small image covers pixels 0 to 3 of the large one: its centre is 1.5
    half = enlarged(np.array([[1, 0, 2.0], [0, 1, -1.0]]), 4)
    np.testing.assert_allclose(AffineMap(half)(np.array([[1.5, 1.5]])), [[9.5, -2.5]])
    turn = about_centre(2.0, 1.01, 50, 50)
    np.testing.assert_allclose(enlarged(turn, 4), about_centre(2.0, 1.01, 200, 200), atol=1e-9)
