"""Demo pairs to register."""

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, reproject

from tmcnet.config import DemoConfig
from tmcnet.raster.register.coarse_to_fine import estimate
from tmcnet.simulate.scene import simulate_scene

SIZE = 320


def demo_pair(folder, name="birch", size=SIZE, **settings):
    simulate_scene(DemoConfig(size=size), name, folder, **settings)
    with rasterio.open(folder / "optical.tif") as optical, rasterio.open(folder / "sar.tif") as sar:
        reference = optical.read().astype(np.float32)
        reference[reference == 0] = np.nan
        moving = np.full((2, size, size), np.nan, np.float32)
        reproject(
            sar.read(), moving, src_transform=sar.transform, src_crs=sar.crs, dst_transform=optical.transform,
            dst_crs=optical.crs, resampling=Resampling.bilinear, src_nodata=np.nan, dst_nodata=np.nan,
        )  # fmt: skip
    return reference, 10 * np.log10(np.maximum(moving, 1e-5)), np.load(folder / "truth.npz")["displacement"]


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return demo_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def found(pair):
    return estimate(pair[0], pair[1])
