import numpy as np
import pytest
from skimage.io import imread

from tests.raster.register.conftest import SIZE
from tmcnet.raster.register.alignment import Alignment
from tmcnet.raster.register.coarse_to_fine import estimate, warp
from tmcnet.raster.register.picture import draw


def test_picture_shows_something(pair, found, tmp_path):
    draw(pair[0], pair[1], warp(pair[1], found.where), found, tmp_path / "alignment.png")
    rejected = estimate(pair[0], np.ones((SIZE, SIZE), np.float32))
    draw(pair[0], pair[1], pair[1], rejected, tmp_path / "rejected.png")
    for name in ("alignment.png", "rejected.png"):
        assert (tmp_path / name).read_bytes()[1:4] == b"PNG"
        assert 50_000 < (tmp_path / name).stat().st_size < 5_000_000


@pytest.mark.parametrize("seen", ["optical", "sar"])
def test_the_picture_of_a_single_sensor_shows_it(pair, tmp_path, seen):
    nothing = [np.full_like(image, np.nan) for image in pair[:2]]
    optical, sar = (pair[0], nothing[1]) if seen == "optical" else (nothing[0], pair[1])
    single = Alignment("single_sensor", "only one")
    draw(optical, sar, sar, single, tmp_path / "single.png")
    draw(*nothing, nothing[1], single, tmp_path / "nothing.png")
    drawn, black = (imread(tmp_path / f"{name}.png").astype(int) for name in ("single", "nothing"))
    assert drawn.shape == black.shape and drawn.shape[1] < 1.4 * drawn.shape[0]
    assert (abs(drawn - black).max(axis=2) > 40).mean() > 0.3
