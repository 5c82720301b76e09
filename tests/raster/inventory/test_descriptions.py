"""What files say of their bands in words counts, or a warning names it."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.raster.conftest import UTM
from tests.raster.test_deliveries import SIZE, optical, power, rows, use
from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import InputError
from tmcnet.raster.inventory.descriptions import Statement, of_config, unit_of
from tmcnet.raster.io.opening import write_part

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def random():
    return np.random.default_rng(0)


def describe(path, descriptions=(), units=(), tags=()):
    with rasterio.open(path, "r+") as dataset:
        for band, text in enumerate(descriptions, 1):
            dataset.set_band_description(band, text)
        for band, unit in enumerate(units, 1):
            dataset.set_band_unit(band, unit)
        for band, of_band in enumerate(tags, 1):
            dataset.update_tags(band, **of_band)
    return path


RGB = ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("bands", "descriptions", "wavelengths", "warned"),
    [
        (RGB, ["B2", "B3", "B4"], [], True),
        (RGB, ["B4", "B3", "B2"], [], False),
        (RGB, ["B04, central wavelength 665 nm", "B03, central wavelength 560 nm", "B02, 490 nm"], [], False),
        (RGB, ["B02, central wavelength 490 nm", "B03, 560 nm", "B04, 665 nm"], [], True),
        (RGB, ["b1", "b2", "b3"], [], False),  # only numbered
        (RGB, ["B01", "B02", "B03"], [(665, "Nanometers"), (560, "Nanometers"), (490, "Nanometers")], False),
        (RGB, [], [(0.49, "Micrometers"), (0.56, "Micrometers"), (0.665, "Micrometers")], True),
        (RGB, [], [(665, ""), (560, ""), (842, "")], True),
        (["B2", "B3", "B4"], ["blue", "green", "red"], [], False),
        (["nir", "swir1", "swir2"], ["Near Infrared", "SWIR 1", "Short-wave infrared 2"], [], False),
        (["nir", "swir1", "red edge"], ["B8A", "B11", "Red-Edge 1"], [], False),
        (["nir", "swir1", "swir2"], ["SR_B4", "SR_B5", "SR_B7"], [], False),  # Landsat 7
        (["first", "second", "third"], ["B2", "B3", "B4"], [], False),
    ],
)
def test_descriptions_and_wavelengths_that_cannot_be_those_of_the_config_are_named(
    source, random, bands, descriptions, wavelengths, warned
):
    use(source)
    sensor = SensorConfig(bands=bands, kind="reflectance")
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    tags = [{"wavelength": str(value), "wavelength_units": unit} for value, unit in wavelengths]
    describe(source.write("o.tif", optical(random, 3)), descriptions, tags=tags)
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    assert (f"but `sensors.optical.bands` calls them {', '.join(bands)}" in rows(source)[0]["warnings"]) == warned


@pytest.mark.parametrize("order", ["234", "432"])
def test_codes_in_the_names_of_files_that_cannot_be_the_bands_of_the_config_are_named(source, random, order):
    use(source)
    sensor = SensorConfig(bands=RGB, kind="reflectance")
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    paths = [source.write(f"T33_B0{code}_10m.tif", optical(random)).name for code in order]
    source.write("s.tif", power(random))
    source.sheet(f"a,{';'.join(paths)},s.tif,,train")
    source.take()
    what = "the bands of optical are B02, B03, B04, but `sensors.optical.bands` calls them red, green, blue"
    assert (what in rows(source)[0]["warnings"]) == (order == "234")


LANDSAT = {8: "LC08_L2SP_038034_20200501_20200820_02_T1", 7: "LE07_L2SP_038034_20030501_20200820_02_T1"}


@pytest.mark.parametrize(
    ("scenes", "config", "other"), [((8, 7), False, True), ((8, 8), False, False), ((7,), True, False)]
)
def test_one_number_of_a_band_means_other_colours_in_other_sensors(source, random, scenes, config, other):
    use(source)
    sensor = SensorConfig(bands=["blue", "green", "red", "nir"] if config else list("abcd"), kind="reflectance")
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    source.write("s.tif", power(random))
    cells = []
    for name, landsat in zip("ab", scenes, strict=False):
        paths = [f"{name}/{LANDSAT[landsat]}_SR_B{number}.TIF" for number in (2, 3, 4, 5)]
        cells.append(
            f"{name},{';'.join(source.write(path, optical(random)) and path for path in paths)},s.tif,,train"
        )
    source.sheet(*cells)
    source.take()
    warnings = rows(source)[-1]["warnings"]
    assert ("optical has B2 (green) where a has B2: use the same bands" in warnings) == other
    assert ("but `sensors.optical.bands` calls them blue, green, red, nir" in warnings) == config


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("S1A_IW_20190430T203520_DVP_RTC30_G_gpuned_2DB7_VV.tif", "linear"),
        ("S1A_IW_20190430T203520_DVP_RTC30_G_gauned_2DB7_VV.tif", "amplitude"),
        ("S1A_amplitude_VV.tif", "amplitude"),
        ("S1A_VV.tif", "linear"),
    ],
)
def test_auto_takes_the_scale_in_the_name_of_a_product(source, random, name, scale):
    use(source, scale="auto")
    source.write("o.tif", optical(random))
    source.write(name, power(random))
    source.sheet(f"a,o.tif,{name},,train")
    assert source.take().records[0].images["sar"].scale == scale
    write_part(source.root / name, "srcwin=0,0,90,90", source.root / "part.vrt")
    source.sheet("a,o.tif,part.vrt,,train")
    assert source.take().records[0].images["sar"].scale == scale


def test_another_polarisation_than_the_config_names_is_named(source, random):
    use(source)
    source.write("o.tif", optical(random))
    describe(source.write("s.tif", power(random)), ["Sigma0_VH"])
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    assert "the bands of sar are Sigma0_VH, but `sensors.sar.bands` calls them vv" in rows(source)[0]["warnings"]


@pytest.mark.parametrize(
    ("text", "unit", "values", "scale"),
    [
        ("Amplitude_VV", "", "power", "amplitude"),
        ("VV", "amplitude", "power", "amplitude"),
        ("Intensity_VV", "", "numbers", "linear"),
        ("Sigma0_VV", "", "power", "linear"),
        ("Sigma0_VV_db", "intensity_db", "decibels", "db"),
        ("VV", "dB", "decibels", "db"),
    ],
)
def test_auto_takes_the_scale_that_the_file_names(source, random, text, unit, values, scale):
    use(source, scale="auto", clip_db=(-60, 60))
    source.write("o.tif", optical(random))
    array = power(random)
    array = {"power": array, "numbers": array * 1e4, "decibels": 10 * np.log10(array)}[values]
    describe(source.write("s.tif", array.astype("u2" if values == "numbers" else "f4")), [text], [unit])
    source.sheet("a,o.tif,s.tif,,train")
    assert source.take().records[0].images["sar"].scale == scale


def test_decibels_without_sign_are_refused_and_other_words_than_values_or_declared_named(source, random):
    use(source, scale="auto")
    source.write("o.tif", optical(random))
    decibels = 10 * np.log10(power(random))
    describe(source.write("s.tif", np.abs(decibels)), ["VV"], ["dB"])
    source.sheet("a,o.tif,s.tif,,train")
    with pytest.raises(
        InputError, match=r"s\.tif: describes its values as decibels \(`VV dB`\), but the smallest value"
    ):
        source.take()
    describe(source.write("s.tif", decibels), ["Amplitude_VV"])
    source.take()
    what = "sar is amplitude by its description `Amplitude_VV`, but db by its values, which count"
    assert what in rows(source)[0]["warnings"]
    use(source, scale="linear")
    describe(source.write("s.tif", power(random)), ["Amplitude_VV"])
    source.take()
    what = "sar is amplitude by its description `Amplitude_VV`, but `sensors.sar.scale` is `linear`"
    assert what in rows(source)[0]["warnings"]


@pytest.mark.parametrize("units", [("m", "ft"), ("", "feet"), ("metre", ""), ("metres", "m")])
def test_heights_in_other_units_than_those_of_the_first_scene_are_named(source, random, units):
    use(source)
    sensor = SensorConfig(bands=["height"], kind="elevation", scale="none")
    source.sensors = SensorsConfig(optical=source.sensors["optical"], sar=sensor)
    for name, unit in zip("ab", units, strict=True):
        source.write(f"o{name}.tif", optical(random))
        heights = random.uniform(100, 120, (SIZE, SIZE)).astype("f4")
        describe(source.write(f"s{name}.tif", heights), ["DEM"], [unit] if unit else [])
    source.sheet("a,oa.tif,sa.tif,,train", "b,ob.tif,sb.tif,,train")
    source.take()
    assert ("use the same bands and units" in rows(source)[1]["warnings"]) == ("f" in units[1])


def test_what_was_said_first_counts_even_if_the_first_scene_says_nothing(source, random):
    use(source)
    for name, text in (("a", ""), ("b", "VV"), ("c", "VH")):
        source.write(f"o{name}.tif", optical(random))
        describe(source.write(f"s{name}.tif", power(random)), [text])
    source.sheet(*(f"{name},o{name}.tif,s{name}.tif,,train" for name in "abc"))
    source.take()
    assert "sar has VH where b has VV" in rows(source)[2]["warnings"]


@pytest.mark.parametrize("unit", ["linear", "intensity amplitude"])
def test_two_scales_in_one_description_say_nothing(source, random, unit):
    use(source, scale="auto", clip_db=(-60, 60))
    source.write("o.tif", optical(random))
    describe(source.write("s.tif", power(random)), ["Amplitude_VV"], [unit])
    source.sheet("a,o.tif,s.tif,,train")
    assert source.take().records[0].images["sar"].scale == "linear"  # by its values


def test_stacks_of_files_that_number_their_bands_say_nothing(source, random):
    use(source)
    sensor = SensorConfig(bands=["vv", "vh"], kind="backscatter", scale="none")
    source.sensors = SensorsConfig(optical=source.sensors["optical"], sar=sensor)
    source.write("o.tif", optical(random))
    for name in ("one", "two"):
        describe(source.write(f"{name}.tif", power(random)), ["b1"])
    source.sheet("a,o.tif,one.tif;two.tif,,train")
    source.take()
    assert "calls them" not in rows(source)[0]["warnings"]


def test_tiles_of_a_mosaic_have_one_unit_in_any_spelling(source, random):
    use(source)
    sensor = SensorConfig(bands=["height"], kind="elevation", scale="none")
    source.sensors = SensorsConfig(optical=source.sensors["optical"], sar=sensor)
    source.write("o.tif", optical(random))
    heights = random.uniform(100, 120, (SIZE, SIZE)).astype("f4")
    for half, unit in enumerate(("metre", "m")):
        place = UTM[1] @ Affine.translation(half * SIZE // 2, 0)
        describe(source.write(f"d{half}.tif", heights[:, : SIZE // 2], transform=place), units=[unit])
    source.sheet("a,o.tif,d*.tif,,train")
    source.take()
    describe(source.root / "d1.tif", units=["ft"])
    with pytest.raises(InputError, match="has another unit"):
        source.take()


def test_statements_contradict_each_other_only_where_both_say_something():
    red, vv, b2, b4, slope = of_config(["red", "vv", "B2", "B04", "slope"])
    nothing = Statement("", frozenset(), "", "")
    assert not red.contradicts(nothing) and not nothing.contradicts(red) and not slope.contradicts(red)
    assert red.contradicts(of_config(["B11"])[0]) and not red.contradicts(b4)
    assert not b2.contradicts(Statement("", frozenset({"blue"}), "", ""))
    assert vv.contradicts(of_config(["VH"])[0]) and not vv.contradicts(of_config(["Sigma0_VV"])[0])
    assert red.contradicts(vv)  # a SAR image in the place of an optical one
    assert not red.contradicts(vv._replace(is_described=False))  # a name of a file may have these letters
    assert not any(one.colours for one in of_config(["b1", "b2", "b3"]))  # only numbers
    assert unit_of("US survey foot") == unit_of("ft") != unit_of("Metre") == unit_of("m")
    assert unit_of("dl") == unit_of("1") == unit_of("reflectance") != unit_of("%")
