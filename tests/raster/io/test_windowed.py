import numpy as np
import pytest

from tmcnet.raster.io import windowed, write_raster
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.io.windowed import (
    ArrayImage,
    Reduced,
    Warped,
    as_image,
    block_means,
    decimate,
    in_memory,
)
from tmcnet.raster.register.alignment import AffineMap


@pytest.fixture(scope="module")
def array():
    values = np.random.default_rng(0).normal(size=(2, 90, 130)).astype(np.float32)
    values[:, 10:20, 30:45] = np.nan
    return values


def test_windows_beyond_the_edges_are_no_data(array):
    window = ArrayImage(array).read(-3, 120, 10, 20)
    assert window.shape == (2, 10, 20)
    np.testing.assert_array_equal(window[:, 3:, :10], array[:, :7, 120:])
    assert np.isnan(window[:, :3]).all() and np.isnan(window[:, :, 10:]).all()
    assert np.isnan(ArrayImage(array).read(500, 500, 4, 4)).all()


def test_a_file_reads_as_its_array(array, tmp_path):
    write_raster(tmp_path / "a.tif", array, None, float("nan"))
    image = Raster.of(tmp_path / "a.tif")
    assert image.shape == array.shape
    np.testing.assert_array_equal(image.read(-3, 120, 10, 20), ArrayImage(array).read(-3, 120, 10, 20))


def test_reduction_by_windows_equals_that_of_the_whole(array):
    whole = block_means(array, 4)
    image = Reduced(ArrayImage(array), 4)
    assert image.shape == whole.shape == (2, 22, 32)
    np.testing.assert_array_equal(image.read(3, 5, 10, 20), whole[:, 3:13, 5:25])
    valid = np.isfinite(array[0, :4, :4])
    assert whole[0, 0, 0] == pytest.approx(array[0, :4, :4][valid].mean(), rel=1e-5)
    assert np.isnan(whole[:, 3, 8:11]).all() and np.isfinite(whole[:, 2, 7]).all()


def test_in_memory_reads_strips(array, monkeypatch):
    monkeypatch.setattr(windowed, "MAX_STRIP_PIXELS", 130 * 16)
    reads = []

    class Recorded(ArrayImage):
        def read(self, row, col, height, width):
            reads.append(height)
            return super().read(row, col, height, width)

    loaded = in_memory(Reduced(Recorded(array), 4))
    np.testing.assert_array_equal(loaded.array, block_means(array, 4))
    assert max(reads) <= 16 and len(reads) > 4
    assert in_memory(loaded) is loaded


def test_a_warped_image_shows_the_content_at_the_mapped_place():
    y, x = np.mgrid[:90, :130].astype(np.float32)
    image = Warped(ArrayImage(np.stack([x, y])), AffineMap(np.array([[0.99, -0.03, 4.0], [0.03, 1.0, -2.0]])))
    window = image.read(20, 30, 40, 50)
    rows, cols = np.mgrid[20:60, 30:80]
    np.testing.assert_allclose(window[0], 0.99 * cols - 0.03 * rows + 4, atol=1e-3)
    np.testing.assert_allclose(window[1], 0.03 * cols + rows - 2, atol=1e-3)
    assert np.isnan(image.read(0, 0, 2, 20)[0, 0]).any() and image.shape == (2, 90, 130)


def test_decimation_by_strips_equals_that_of_the_whole(array, monkeypatch):
    monkeypatch.setattr(windowed, "MAX_STRIP_PIXELS", 130 * 12)
    np.testing.assert_array_equal(decimate(ArrayImage(array), 7), array[:, ::7, ::7])
    np.testing.assert_array_equal(decimate(as_image(array[0]), 200), array[:1, :1, :1])
