"""Scenes, files and labels that contradict each other or the config are named."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.raster.conftest import UTM
from tests.raster.test_deliveries import SIZE, optical, power, rows, use
from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import InputError


@pytest.fixture
def random():
    return np.random.default_rng(1)


def two_scenes(source, random, first, second, names=("a.tif", "b.tif")):
    """Scenes side by side: the second is on other ground."""
    source.write(names[0], first)
    source.write(names[1], second, transform=Affine(10, 0, 600_000, 0, -10, 5_400_000))
    source.write("sa.tif", power(random))
    source.write("sb.tif", power(random), transform=Affine(10, 0, 600_000, 0, -10, 5_400_000))
    source.sheet(f"a,{names[0]},sa.tif,,train", f"b,{names[1]},sb.tif,,train")
    source.take()
    return [row["warnings"] for row in rows(source)]


def test_files_in_another_order_than_the_bands_are_refused_by_their_names(source, random):
    use(source)
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["B02", "B03"], kind="reflectance"), sar=source.sensors["sar"]
    )
    for name in ("T33_B03_10m.tif", "T33_B02_10m.tif"):
        source.write(name, optical(random))
    source.write("s.tif", power(random))
    source.sheet("a,T33_B03_10m.tif;T33_B02_10m.tif,s.tif,,train")
    with pytest.raises(InputError, match="are by their names the bands B03, B02, but"):
        source.take()
    source.sheet("a,T33_B02_10m.tif;T33_B03_10m.tif,s.tif,,train")
    source.take()


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (("B3, central wavelength 560 nm", "B2, central wavelength 490 nm"), False),
        (("B2, central wavelength 490 nm", "B3, central wavelength 560 nm"), True),
        (("SR_B3", "SR_B2"), False),
        (("first of B02 and B03", "second"), True),
    ],
)
def test_codes_in_descriptions_of_bands_count(source, random, names, fits):
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["B02", "B03"], kind="reflectance"),
        sar=SensorConfig(bands=["vv"], kind="backscatter", scale="none"),
    )
    with rasterio.open(source.write("o.tif", optical(random, 2)), "r+") as dataset:
        dataset.descriptions = names
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    if fits:
        source.take()
        return
    with pytest.raises(InputError, match="describes its bands as"):
        source.take()


def test_a_stack_of_which_only_one_file_is_scaled_is_noted(source, random):
    use(source, bands=2)
    with rasterio.open(source.write("o1.tif", optical(random)), "r+") as dataset:
        dataset.scales = (1e-4,)
    source.write("o2.tif", optical(random))
    source.write("s.tif", power(random))
    source.sheet("a,o1.tif;o2.tif,s.tif,,train")
    source.take()
    assert rows(source)[0]["warnings"] == "o2.tif: no scale or offset, which o1.tif of the same stack has"


@pytest.mark.parametrize(("ground", "kept"), [(0, "97.9%"), (1, "2.1%")])
def test_an_extra_band_that_is_taken_for_a_mask_is_said_with_what_it_keeps(source, random, ground, kept):
    use(source, bands=2)
    mask = np.full((1, SIZE, SIZE), 1 - ground, "u2")
    mask[:, :2] = ground
    source.write("o.tif", np.concatenate([optical(random, 2), mask]))
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    found = rows(source)[0]["warnings"]
    assert f"the last band is read as a mask in which 0 means no data; {kept} of the pixels are valid" in found


@pytest.mark.parametrize("scale", ["auto", "linear"])
def test_slightly_negative_power_is_what_subtracted_noise_leaves(source, random, scale):
    use(source, scale=scale)
    backscatter = power(random)
    backscatter[:9] = -1e-3 * np.arange(1, SIZE + 1)
    source.write("o.tif", optical(random))
    source.write("s.tif", backscatter)
    source.sheet("a,o.tif,s.tif,,train")
    assert source.take().record("a").images["sar"].scale == "linear"
    assert "s.tif: the smallest linear power is -0.096; below 0, as subtraction" in rows(source)[0]["warnings"]


def test_sentinel_2_products_with_and_without_offset_are_distinguished_by_name(source, random):
    use(source)
    values = optical(random)
    names = "S2A_MSIL2A_20210101_N0214_R122.tif", "S2B_MSIL2A_20230101_N0509_R122.tif"
    first, second = two_scenes(source, random, values, values + 1000, names)
    assert first == ""
    assert f"{names[1]}: by its name it contains the offset of Sentinel-2 since baseline 04.00, {names[0]}" in second


def test_scenes_on_other_ground_in_another_unit_are_noted(source, random):
    use(source)
    values = optical(random)
    first, second = two_scenes(source, random, (values / 1e4).astype("f4"), (values / 1e2).astype("f4"))
    assert first == "" and "the median of optical is" in second and "check that both have the same unit" in second


def test_decibels_beside_linear_power_taken_as_delivered_are_noted(source, random):
    use(source)
    values = optical(random)
    source.write("o.tif", values)
    source.write("o2.tif", values, transform=Affine(10, 0, 600_000, 0, -10, 5_400_000))
    source.write("s.tif", 10 * np.log10(power(random)))
    source.write("s2.tif", power(random), transform=Affine(10, 0, 600_000, 0, -10, 5_400_000))
    source.sheet("a,o.tif,s.tif,,train", "b,o2.tif,s2.tif,,train")
    source.take()
    assert "the median of sar is 0.0" in rows(source)[1]["warnings"]


@pytest.mark.parametrize(
    ("factor", "scale", "noted"), [(1, "none", True), (1, "auto", False), (0.01, "none", False), (100, "none", False)]
)
def test_linear_power_that_stays_linear_is_noted(source, random, factor, scale, noted):
    use(source, scale=scale)
    source.write("o.tif", optical(random))
    backscatter = power(random)
    backscatter[:4, :4] = 12  # a ship; 0..1 and 0..255 are ranges of pictures
    source.write("s.tif", (backscatter * factor).astype("f4"))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    found = rows(source)[0]["warnings"]
    assert ("`sensors.sar.scale: none` leaves them as they are, `auto` makes them dB" in found) == noted


def test_complex_numbers_that_stay_linear_power_are_noted(source, random):
    use(source, scale="none")
    source.write("o.tif", optical(random))
    backscatter = (9 * (np.arange(SIZE) < 3) + random.normal(size=(2, SIZE, SIZE)) / 9) * np.array([1, 1j])[
        :, None, None
    ]
    source.write("s.tif", backscatter.sum(axis=0).astype("c8"))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    found = rows(source)[0]["warnings"]
    assert "read as power |z|^2" in found and "`sensors.sar.scale: none` leaves them as they are" in found


def test_a_tag_of_no_data_that_is_the_code_of_a_class_is_noted(source, random):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    codes = np.ones((SIZE, SIZE), "u1")
    codes[0] = 2
    source.write("l.tif", codes, nodata=2)
    source.sheet("a,o.tif,s.tif,l.tif,train")
    source.take()
    what = f"l.tif: 2 is its value of no data and the code of a class, which counts ({SIZE} pixels)"
    assert rows(source)[0]["warnings"] == what


@pytest.mark.parametrize("offset", [0, 1000])
def test_overlapping_tiles_that_disagree_are_noted(source, random, offset):
    use(source)
    values = optical(random)
    source.write("o1.tif", values)
    source.write("o2.tif", values[:, :, SIZE // 2 :] + offset, transform=Affine(10, 0, 500_480, 0, -10, 5_400_000))
    source.write("s.tif", power(random))
    source.sheet("a,o*.tif,s.tif,,train")
    source.take()
    assert ("o1.tif and o2.tif overlap with medians of 1" in rows(source)[0]["warnings"]) == bool(offset)


@pytest.mark.parametrize("by", ["names of files", "descriptions"])
def test_scenes_with_the_bands_of_others_in_another_order_are_named(source, random, by):
    use(source, 2)
    cells = {}
    for scene, date, bands in (("a", 1, ("B04", "B08")), ("b", 2, ("B08", "B04")), ("c", 3, ("B04", "B08"))):
        place = UTM[1] @ Affine.translation(date * 200, 0)
        source.write(f"s{scene}.tif", power(random), transform=place)
        if by == "descriptions":
            path = source.write(f"{scene}.tif", optical(random, 2), transform=place)
            with rasterio.open(path, "r+") as dataset:
                dataset.descriptions = bands
            cells[scene] = path.name
        else:
            paths = [source.write(f"T33_{date}_{b}.tif", optical(random), transform=place) for b in bands]
            cells[scene] = ";".join(path.name for path in paths)
    source.sheet(*(f"{scene},{cell},s{scene}.tif,,train" for scene, cell in cells.items()))
    source.take()
    what = "the bands of optical are B08, B04, those of a B04, B08: bring them to one order"
    assert [what in row["warnings"] for row in rows(source)] == [False, True, False]


def test_a_band_of_labels_that_is_taken_for_a_mask_is_noted(source, random):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    codes = np.ones((2, SIZE, SIZE), "u1")
    codes[1, :, : SIZE // 4] = 0
    source.write("l.tif", codes)
    source.sheet("a,o.tif,s.tif,l.tif,train")
    source.take()
    what = "l.tif: the last band is read as a mask in which 0 means no data; 75.0% of the pixels are valid"
    assert what in rows(source)[0]["warnings"]


@pytest.mark.parametrize("numbered_anew", [True, False])
@pytest.mark.parametrize("kind", ["colour", "name"])
def test_labels_that_number_the_same_colours_or_names_otherwise_are_named(source, random, numbered_anew, kind):
    use(source)
    for name, (water, land) in (("a", (1, 2)), ("b", (2, 1) if numbered_anew else (1, 2))):
        source.write(f"o{name}.tif", optical(random))
        source.write(f"s{name}.tif", power(random))
        path = source.write(f"l{name}.tif", random.integers(1, 3, (SIZE, SIZE)).astype("u1"))
        if kind == "colour":
            with rasterio.open(path, "r+") as dataset:
                dataset.write_colormap(1, {water: (0, 0, 255), land: (0, 255, 0), 3: (9, 9, 9)})
        else:
            names = "".join(
                f"<Category>{({water: 'Water', land: 'Land'}).get(code, '')}</Category>" for code in range(3)
            )
            band = f'<PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand>'
            path.with_suffix(".tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    source.sheet("a,oa.tif,sa.tif,la.tif,train", "b,ob.tif,sb.tif,lb.tif,train")
    source.take()
    what = f"code 1 of the label has the {kind} of code 2 in a: check that codes mean the same"
    warnings = [row["warnings"] for row in rows(source)]
    assert [what in text for text in warnings] == [False, numbered_anew]
    what = "the label calls code 2 `Water`, but `labels.classes` gives this class the codes 1"
    assert [what in text for text in warnings] == [False, numbered_anew and kind == "name"]


@pytest.mark.parametrize("described", [True, False])
def test_scenes_of_different_polarisations_are_named(source, random, described):
    use(source)
    for name, code in (("a", "vv"), ("b", "vh")):
        source.write(f"o{name}.tif", optical(random))
        path = source.write(f"{name if described else code}.tif", power(random))
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = [code.upper() if described else None]
    first, second = ("a", "b") if described else ("vv", "vh")
    source.sheet(f"a,oa.tif,{first}.tif,,train", f"b,ob.tif,{second}.tif,,train")
    source.take()
    texts = ("VH", "VV") if described else ("vh.tif", "vv.tif")
    what = f"sar has {texts[0]} where a has {texts[1]}: use the same bands"
    assert [what in row["warnings"] for row in rows(source)] == [False, True]
