"""Quality masks hold codes or bits, on any grid; what they call no data is no data, and nothing else."""

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.raster.test_deliveries import SIZE, align, optical, power, rows, use
from tests.raster.tiling.test_landmarks import GRID, landmark, turned_grid
from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import InputError
from tmcnet.raster.io.reader import read_float, read_grid

pytestmark = pytest.mark.usefixtures("no_pictures")

CLEAR, CLOUD = 21824, 22280
"""Numbers of `QA_PIXEL` of Landsat 8 for clear land, and for a cloud."""


@pytest.fixture
def random():
    return np.random.default_rng(3)


def masked(source, name, columns="", cells="", **keys):
    """Give the optical image of the only scene a quality mask."""
    source.sheet()
    text = f"scene,optical,sar,optical_mask{columns}\na,o.tif,s.tif,{name}{cells}\n"
    (source.root / "scenes.csv").write_text(text)
    sensor = SensorConfig(**source.sensors["optical"].model_dump() | {"mask_codes": [], "mask_bits": []} | keys)
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])


def images(source, random):
    use(source)
    source.write("s.tif", power(random))
    return source.write("o.tif", optical(random))


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    image=GRID,
    mask=GRID,
    dtype=st.sampled_from(["u1", "u2", "i2", "u4", "f4"]),
    bits=st.sets(st.integers(0, 7), min_size=1, max_size=4),
    others=st.integers(0, 255),
    code=st.sampled_from([None, 0, 255]),
    form=st.sampled_from(["config", "sheet", "bands"]),
)
def test_a_masked_landmark_is_no_data_and_its_surroundings_are_not(
    source, image, mask, dtype, bits, others, code, form
):
    use(source)
    (image_crs, *image_form), (mask_crs, *mask_form) = image, mask
    (at, shape), (mask_at, mask_shape) = turned_grid(image_crs, *image_form), turned_grid(mask_crs, *mask_form)
    brightness = landmark(at, shape, image_crs)
    source.write("o.tif", (100 + 10_000 * brightness).astype("u2"), image_crs, at)
    source.write("s.tif", (1 + brightness).astype("f4"), image_crs, at)
    ignored = others & ~sum(1 << bit for bit in bits)
    there = landmark(mask_at, mask_shape, mask_crs) > 0.3
    numbers = np.where(there, ignored | (1 << min(bits)), ignored)
    if form == "bands":
        numbers = np.stack([(numbers >> bit) & 1 for bit in range(8)])
    source.write("qa.tif", numbers.astype("u1" if form == "bands" else dtype), mask_crs, mask_at)
    text = ";".join(map(str, sorted(bits)))
    if form == "sheet":
        masked(source, "qa.tif", ",optical_mask_bits", f",{text}", mask_codes=[ignored])
    else:
        unused = [] if code is None or code in (ignored, 0) else [code]
        masked(source, "qa.tif", mask_bits=sorted(bits), mask_codes=unused)
    found = read_float(align(source) / "optical.tif")[0]
    values = brightness[: found.shape[0], : found.shape[1]]
    assert read_grid(source.root / "o.tif").transform == at
    assert np.isnan(found[values > 0.6]).all() and np.isfinite(found[values < 0.1]).all()
    np.testing.assert_allclose(found[values < 0.1], (100 + 10_000 * values[values < 0.1]).astype("u2"))


def test_bits_and_codes_of_a_scene_replace_those_of_the_config(source, random):
    images(source, random)
    numbers = np.full((SIZE, SIZE), 4, "u2")
    numbers[:, :30], numbers[:, 30:40] = 8, 9
    source.write("qa.tif", numbers)
    masked(source, "qa.tif", ",optical_mask_codes", ",9", mask_bits=[3])
    empty = np.isnan(read_float(align(source) / "optical.tif")[0])
    assert empty[:, 30:40].all() and empty.sum() == 10 * SIZE


@pytest.mark.parametrize(
    ("columns", "cells", "what"),
    [
        (",optical_mask_bits", ",1;cloud", "has `1;cloud` in `optical_mask_bits`. Write whole numbers such as"),
        (",optical_mask_bits", ",32", "has `32` in `optical_mask_bits`"),
        (",sar_mask_codes", ",3", "has `sar_mask_codes` without `sar_mask`"),
    ],
)
def test_a_row_with_faulty_bits_or_codes_is_named(source, random, columns, cells, what):
    images(source, random)
    source.write("qa.tif", np.ones((SIZE, SIZE), "u1"))
    masked(source, "qa.tif", columns, cells, mask_bits=[1])
    with pytest.raises(InputError, match=what):
        source.take()


@pytest.mark.parametrize(
    "name", ["LC08_L2SP_038034_20230823_20230826_02_T1_QA_PIXEL.TIF", "mask.tif", "described.tif"]
)
def test_bits_that_are_read_as_codes_are_noted(source, random, name):
    images(source, random)
    numbers = np.full((SIZE, SIZE), CLEAR, "u2")
    numbers[:20] = CLOUD
    path = source.write(name, numbers)
    if name == "described.tif":
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = ("QA_PIXEL",)
    masked(source, name, mask_codes=[1, 3, 4] if name == "mask.tif" else [CLOUD])
    source.take()
    found = rows(source)[0]["warnings"]
    by_name = (
        f"the quality mask {name} holds bits by its name, so that `mask_codes` misses combinations such as {CLEAR}"
    )
    by_value = "which is in `sensors.optical.mask_codes`; if they are sums of bits, give `mask_bits` instead"
    assert (by_value if name == "mask.tif" else by_name) in found
    masked(source, name, mask_bits=[0, 1, 2, 3, 4])
    empty = np.isnan(read_float(align(source) / "optical.tif")[0])
    assert empty[:20].all() and empty.sum() == 20 * SIZE and rows(source)[0]["warnings"] == ""


@pytest.mark.parametrize(("name", "codes"), [("QA60.tif", [1024, 2048]), ("scl.tif", [1024]), ("fmask.tif", [2048])])
def test_codes_of_masks_that_hold_them_are_not_noted(source, random, name, codes):
    images(source, random)
    numbers = np.zeros((SIZE, SIZE), "u2")
    numbers[:20], numbers[20:30] = codes[0], codes[-1]
    source.write(name, numbers)
    masked(source, name, mask_codes=codes)
    source.take()
    assert rows(source)[0]["warnings"] == ""


def test_bands_are_bits_only_if_they_are_0_and_1(source, random):
    images(source, random)
    layers = np.zeros((3, SIZE, SIZE), "u1")
    layers[1, :20], layers[2, 20:40] = 1, 1
    source.write("MSK_CLASSI_B00.tif", layers)
    masked(source, "MSK_CLASSI_B00.tif", mask_bits=[0, 1])
    empty = np.isnan(read_float(align(source) / "optical.tif")[0])
    assert empty[:20].all() and empty.sum() == 20 * SIZE
    masked(source, "MSK_CLASSI_B00.tif", mask_codes=[1])
    source.take()
    assert "has 3 bands, of which the first is read; `mask_bits` reads all" in rows(source)[0]["warnings"]
    masked(source, "MSK_CLASSI_B00.tif", mask_bits=[3])
    source.take()
    assert "has 3 bits, but `mask_bits` names 3; bits are counted from 0" in rows(source)[0]["warnings"]
    source.write("MSK_CLASSI_B00.tif", layers * 255)
    with pytest.raises(InputError, match=r"MSK_CLASSI_B00\.tif: has 3 bands, which count as bits"):
        source.take()


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("lost", [{"crs": None}, {"crs": None, "transform": None}])
def test_a_quality_mask_without_the_place_that_the_image_has_is_named(source, random, lost, image):
    use(source)
    source.write("o.tif", optical(random), **(lost if image else {}))
    source.write("q.tif", np.zeros((SIZE, SIZE), "u1"), **({} if image else lost))
    source.write("s.tif", power(random))
    source.sheet()
    columns = "scene,optical,sar,optical_mask,optical_mask_codes"
    (source.root / "scenes.csv").write_text(f"{columns}\na,o.tif,s.tif,q.tif,9\n")
    with pytest.raises(InputError, match=r"q\.tif: is the quality mask of .*o\.tif, but only one of them has a CRS"):
        source.take()


@pytest.mark.parametrize("keys", [{"mask_codes": [3]}, {"mask_codes": [3, 255]}, {"mask_bits": [0, 1]}])
@pytest.mark.parametrize("tag", [0, 255])
def test_a_mask_whose_own_no_data_does_not_count_is_noted(source, random, keys, tag):
    images(source, random)
    values = np.full((SIZE, SIZE), 4, "u1")
    values[:9], values[9:15], values[20:30] = 255, 0, 3
    source.write("m.tif", values, nodata=tag)
    masked(source, "m.tif", **keys)
    empty = np.isnan(read_float(align(source) / "optical.tif")[0])
    counts = tag == 255 and keys != {"mask_codes": [3]}
    assert empty[20:30].all() and not empty[9:15].any() and empty[:9].all() == (keys != {"mask_codes": [3]})
    text = (
        f"the quality mask m.tif has its own value of no data, {tag}, where optical is used: only listed codes count"
    )
    assert (text in rows(source)[0]["warnings"]) != counts
