"""The numbers of satellite products mean what their metadata say, in all forms in which the files are delivered."""

import re
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.raster.test_deliveries import SIZE, align, optical, power, rows, use
from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import InputError
from tmcnet.raster import names
from tmcnet.raster.inventory.sources import find_entries
from tmcnet.raster.io import opening
from tmcnet.raster.io.files import RasterFile
from tmcnet.raster.io.products import meaning_by_name
from tmcnet.raster.io.reader import read_float

pytestmark = pytest.mark.usefixtures("no_pictures")

JP2 = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
OTHER_GROUND = Affine(10, 0, 600_000, 0, -10, 5_400_000)
PRODUCT = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">
<n1:General_Info><Product_Info><PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
<PRODUCT_TYPE>S2MSI{level}</PRODUCT_TYPE><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
<Query_Options completeSingleTile="true"><PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT></Query_Options>
<Product_Organisation><Granule_List><Granule datastripIdentifier="S2B" granuleIdentifier="S2B_OPER_MSI_T33UUP_N05.09"
 imageFormat="JPEG2000">{images}</Granule></Granule_List></Product_Organisation></Product_Info>
<Product_Image_Characteristics><QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>{offsets}
</Product_Image_Characteristics></n1:General_Info></n1:Level-{level}_User_Product>
"""
TILE = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-1C_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-1C_Tile_Metadata.xsd">
<n1:Geometric_Info><Tile_Geocoding><HORIZONTAL_CS_CODE>EPSG:32633</HORIZONTAL_CS_CODE>
<Size resolution="10"><NROWS>96</NROWS><NCOLS>96</NCOLS></Size>
<Geoposition resolution="10"><ULX>500000</ULX><ULY>5400000</ULY><XDIM>10</XDIM><YDIM>-10</YDIM></Geoposition>
</Tile_Geocoding></n1:Geometric_Info></n1:Level-1C_Tile_ID>
"""


@pytest.fixture
def random():
    return np.random.default_rng(5)


def product(source, values, added, level="1C", transform=None, others=False):
    """A look-alike of a Sentinel-2 product with bands 2 and 3: values with what was added before rounding.

    With `others`, bands 4 and 8 have the same values.
    """
    day, number = ("20230823", "0509") if added else ("20200823", "0209")
    name, tile = f"S2B_MSIL{level}_{day}T101559_N{number}_R065_T33UUP_{day}T124759", f"T33UUP_{day}T101559"
    folder = f"{name}.SAFE/GRANULE/L{level}_T33UUP_A033753_{day}T101553"
    images = f"{folder}/IMG_DATA/R10m" if level == "2A" else f"{folder}/IMG_DATA"
    paths = [f"{images}/{tile}_B0{2 + n}{'_10m' if level == '2A' else ''}.jp2" for n in range(len(values))]
    if others:
        paths += [f"{images}/{tile}_{band}{'_10m' if level == '2A' else ''}.jp2" for band in ("B04", "B08")]
        values = [*values, *values]
    for path, band in zip(paths, values, strict=True):
        source.write(path, band + np.uint16(added), **JP2 | ({"transform": transform} if transform else {}))
    tag = "BOA_ADD_OFFSET" if level == "2A" else "RADIO_ADD_OFFSET"
    offsets = "".join(f'<{tag} band_id="{n}">{-added}</{tag}>' for n in range(13)) if added else ""
    offsets = f"<Radiometric_Offset_List>{offsets}</Radiometric_Offset_List>" if added else ""
    listed = "".join(f"<IMAGE_FILE>{path.split('/', 1)[1].removesuffix('.jp2')}</IMAGE_FILE>" for path in paths)
    text = PRODUCT.format(level=level, baseline=f"{number[:2]}.{number[2:]}", images=listed, offsets=offsets)
    (source.root / f"{name}.SAFE" / f"MTD_MSIL{level}.xml").write_text(text)
    (source.root / folder / "MTD_TL.xml").write_text(TILE)
    return [source.root / path for path in paths], source.root / f"{name}.SAFE" / f"MTD_MSIL{level}.xml"


def use_bands(source, *bands, **keys):
    use(source)
    sensor = SensorConfig(bands=list(bands), kind="reflectance", **keys)
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])


def delivered(form, paths, metadata):
    """Names for the sample sheet, of one product in one of the forms that people have."""
    if form == "in .SAFE":
        return ";".join(map(str, paths))
    if form == "beside metadata":
        folder = metadata.parent.parent / metadata.parent.name[:30]
        folder.mkdir()
        shutil.copy(metadata, folder)
        return ";".join(str(shutil.copy(path, folder)) for path in paths)
    inside = [path.relative_to(metadata.parent.parent) for path in paths]
    if form in ("zip", "tar"):
        archive = f"{metadata.parent}.{form}"
        if form == "zip":
            shutil.make_archive(str(metadata.parent), form, metadata.parent.parent, metadata.parent.name)
        else:  # in a form of long names that GDAL reads
            with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as file:
                file.add(metadata.parent, metadata.parent.name)
        shutil.rmtree(metadata.parent)
        return ";".join(f"/vsi{form}/{archive}/{path}" for path in inside)
    if form.startswith("http"):
        return ";".join(f"{form}/{path}" for path in inside)
    if form == "virtual raster":
        out = metadata.parent.parent / f"{metadata.parent.name[:30]}.vrt"
        subprocess.run(["gdalbuildvrt", "-q", "-separate", out, *paths], check=True)
        return str(out)
    return f"SENTINEL2_L1C:{metadata}:10m:EPSG_32633"


@pytest.mark.parametrize("level", ["1C", "2A"])
@pytest.mark.parametrize("form", ["in .SAFE", "beside metadata", "zip", "tar", "virtual raster", "subdataset"])
@pytest.mark.parametrize("factor", [None, 1e-4])
def test_sentinel_2_means_the_same_before_and_after_baseline_4(source, random, form, level, factor):
    if form == "subdataset" and level == "2A":
        pytest.skip("these have bands of aerosol and water vapour besides")
    use_bands(source, *(["B4", "B3", "B2", "B8"] if form == "subdataset" else ["B02", "B03"]), scale_factor=factor)
    values = optical(random, 2)
    whole = form == "subdataset"
    cells = [delivered(form, *product(source, values, added, level, others=whole)) for added in (0, 1000)]
    source.write("s.tif", power(random))
    source.sheet(f"a,{cells[0]},s.tif,,train", f"b,{cells[1]},s.tif,,train")
    bands = [2, 1] if form == "subdataset" else [0, 1]
    for scene in "ab":
        found = read_float(align(source, scene) / "optical.tif")[bands]
        np.testing.assert_allclose(found, values * np.float32(factor or 1), rtol=1e-6)
    notes = [row["warnings"] for row in rows(source)]
    assert "the offset -1000 of the product's metadata is added to the numbers of optical" in notes[1]
    assert not any(text in note for note in notes for text in ("tags", "by its name")) and "metadata" not in notes[0]


def test_only_reflectance_of_a_level_2_subdataset_has_the_offset(source, random, monkeypatch):
    # GDAL finds the files of whole products of level 2 only, and here the metadata matter
    monkeypatch.setattr(opening, "_bands_of_sources", lambda *_: {})
    use_bands(source, "B4", "B3", "B2", "B8", "aot", "wvp")
    paths, metadata = product(source, optical(random, 2), 1000, "2A")
    (metadata.parent / "GRANULE" / paths[0].parts[-4] / "MTD_TL.xml").write_text(TILE.replace("1C", "2A"))
    source.write(str(paths[0]).replace("B02", "AOT"), np.full((SIZE, SIZE), 150, "u2"), **JP2)
    text = metadata.read_text().replace("Radiometric_Offset_List", "BOA_ADD_OFFSET_VALUES_LIST")
    metadata.write_text(text.replace("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE"))
    source.write("s.tif", power(random))
    source.sheet(f"a,SENTINEL2_L2A:{metadata}:10m:EPSG_32633,s.tif,,train")
    header = source.take().record("a").images["optical"].raster.files[0].header
    assert header.scaling == ((1, -1000),) * 4 + ((1, 0),) * 2


def test_a_product_that_lacks_the_file_of_a_band_is_refused(source, random):
    use_bands(source, "B4", "B3", "B2", "B8")
    paths, metadata = product(source, optical(random, 2), 1000, others=True)
    paths[2].unlink()
    source.write("s.tif", power(random))
    source.sheet(f"a,{delivered('subdataset', paths, metadata)},s.tif,,train")
    with pytest.raises(InputError, match=r"has no file for band B4\b.*, which would be read as zeros"):
        source.take()


def test_bands_that_a_virtual_raster_leaves_out_need_no_file(source, random):
    use_bands(source, "B3", "B2")
    values = optical(random, 2)
    paths, metadata = product(source, values, 1000, others=True)
    paths[2].unlink()
    virtual = source.root / "o.vrt"
    bands = ("-b", "2", "-b", "3")
    subprocess.run(
        ["gdal_translate", "-q", "-of", "VRT", *bands, delivered("subdataset", paths, metadata), virtual], check=True
    )
    source.write("s.tif", power(random))
    source.sheet("a,o.vrt,s.tif,,train")
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values[::-1])


def test_a_geotiff_made_of_a_subdataset_has_its_offset(source, random):
    use_bands(source, "B02", "B03")
    values = optical(random, 2)
    for scene, dtype, tags in (("a", "u2", {"BOA_ADD_OFFSET": "-1000"}), ("b", "f4", {}), ("c", "u2", {})):
        path = source.write(f"{scene}.tif", values + (1000 if tags else 0), dtype=np.dtype(dtype).name)
        with rasterio.open(path, "r+") as dataset:
            for band in (1, 2):
                dataset.update_tags(band, **tags)
            dataset.update_tags(PROCESSING_BASELINE="05.09")
    source.write("s.tif", power(random))
    source.sheet(*(f"{scene},{scene}.tif,s.tif,,train" for scene in "abc"))
    for scene in "abc":
        np.testing.assert_array_equal(read_float(align(source, scene) / "optical.tif"), values)
    notes = [row["warnings"] for row in rows(source)]
    assert "the offset -1000 of the product's metadata is added" in notes[0] and "state PROC" not in notes[0]
    assert "its metadata state PROCESSING_BASELINE = 05.09, which no tag applies" in notes[2]
    assert "state PROC" not in notes[1]


@pytest.mark.parametrize("band", ["3", "mask,3"])
@pytest.mark.parametrize("place", ["band", "mask", "nested"])
def test_a_virtual_raster_that_takes_a_band_of_none_is_refused(source, random, band, place):
    use_bands(source, "B02", "B03")
    source.write("o.tif", optical(random, 2))
    source.write("s.tif", power(random))
    virtual = source.root / "o.vrt"
    subprocess.run(["gdal_translate", "-q", "-of", "VRT", "-mask", "1", source.root / "o.tif", virtual], check=True)
    if place == "nested":
        subprocess.run(["gdalbuildvrt", "-q", source.root / "outer.vrt", virtual], check=True)
    text, of_mask = virtual.read_text(), place == "mask"
    parts = text.partition("<MaskBand>")
    changed = re.sub("<SourceBand>.*?<", f"<SourceBand>{band}<", parts[2 if of_mask else 0], count=1)
    virtual.write_text(parts[0] + parts[1] + changed if of_mask else changed + parts[1] + parts[2])
    source.sheet(f"a,{'outer' if place == 'nested' else 'o'}.vrt,s.tif,,train")
    with pytest.raises(InputError, match=r"o\.vrt: takes band 3 of .*o\.tif, which has 2"):
        source.take()


@pytest.mark.parametrize("nested", [False, True])
def test_a_virtual_raster_with_a_band_of_nothing_is_refused(source, random, nested):
    use_bands(source, "B02", "B03")
    source.write("o.tif", optical(random, 2))
    source.write("s.tif", power(random))
    virtual = source.root / "o.vrt"
    subprocess.run(["gdal_translate", "-q", "-of", "VRT", source.root / "o.tif", virtual], check=True)
    text = virtual.read_text()
    virtual.write_text(re.sub(r"<SimpleSource>(?!.*<SimpleSource>).*?</SimpleSource>", "", text, flags=re.DOTALL))
    if nested:
        subprocess.run(["gdalbuildvrt", "-q", source.root / "outer.vrt", virtual], check=True)
    source.sheet(f"a,{'outer' if nested else 'o'}.vrt,s.tif,,train")
    with pytest.raises(InputError, match="has no file for band 2, which would be read as zeros"):
        source.take()


@pytest.mark.parametrize("lost", ["no metadata", "metadata of another product"])
def test_an_offset_that_no_metadata_gives_is_named_with_its_value(source, random, lost):
    use_bands(source, "B02", "B03")
    values = optical(random, 2)
    (old, _), (new, metadata) = (
        product(source, values, added, transform=t) for added, t in ((0, None), (1000, OTHER_GROUND))
    )
    if lost == "no metadata":
        metadata.unlink()
    else:
        metadata.write_text(metadata.read_text().replace("T33UUP_20230823T101559", "T33UUP_20230830T101559"))
    source.write("s.tif", power(random))
    source.write("s2.tif", power(random), transform=OTHER_GROUND)
    source.sheet(*(f"{n},{p[0]};{p[1]},{s},,train" for n, p, s in (("a", old, "s.tif"), ("b", new, "s2.tif"))))
    source.take()
    first, second = (row["warnings"] for row in rows(source))
    assert (
        first == ""
        and "contains the offset of Sentinel-2 since baseline 04.00, T33UUP_20200823T101559_B02.jp2" in second
    )
    assert "give `optical_add_offset` -1000 in the sample sheet" in second


def test_what_is_named_for_landsat_and_sentinel_2_makes_their_values_comparable(source, random):
    use_bands(source, "red")
    values = optical(random).astype(float)
    (path, _), _ = product(source, values[[0, 0]].astype("u2"), 1000)
    source.write(LANDSAT, np.rint((values / 1e4 + 0.2) / 2.75e-5).astype("u2"), transform=OTHER_GROUND)
    source.write("s.tif", power(random))
    source.write("s2.tif", power(random), transform=OTHER_GROUND)
    source.sheet(f"a,{path},s.tif,,train", f"b,{LANDSAT},s2.tif,,train")
    source.take()
    declared = [dict(re.findall(r"`optical_(\w+)` (\S+)", row["warnings"])) for row in rows(source)]
    assert declared == [{"scale_factor": "0.0001"}, {"scale_factor": "2.75e-05", "add_offset": "-0.2"}]
    cells = [",".join([d["scale_factor"], d.get("add_offset", "")]) for d in declared]
    head = "scene,optical,sar,optical_scale_factor,optical_add_offset"
    (source.root / "scenes.csv").write_text(f"{head}\na,{path},s.tif,{cells[0]}\nb,{LANDSAT},s2.tif,{cells[1]}\n")
    first, second = (read_float(align(source, scene) / "optical.tif") for scene in "ab")
    np.testing.assert_allclose(first, values / 1e4, rtol=1e-5)
    np.testing.assert_allclose(second, values / 1e4, atol=2e-5)
    assert not any("by its name" in row["warnings"] for row in rows(source))


def test_a_declared_offset_counts_in_place_of_that_of_the_metadata(source, random):
    use_bands(source, "B02", "B03", scale_factor=1e-4, add_offset=-0.05)
    values = optical(random, 2)
    paths, _ = product(source, values, 1000)
    source.write("s.tif", power(random))
    source.sheet(f"a,{paths[0]};{paths[1]},s.tif,,train")
    np.testing.assert_allclose(read_float(align(source) / "optical.tif"), (values + 1000.0) / 1e4 - 0.05, rtol=1e-5)


def test_a_result_depends_on_the_metadata_of_its_product(source, random):
    use_bands(source, "B02", "B03")
    paths, metadata = product(source, optical(random, 2), 1000)
    source.write("s.tif", power(random))
    source.sheet(f"a,{paths[0]};{paths[1]},s.tif,,train")
    assert metadata in find_entries(source.source, source.root, source.sensors)[0].files
    before = source.take().record("a").digests
    metadata.write_text(metadata.read_text().replace("-1000", "-900"))
    assert source.take().record("a").digests != before
    assert "the offset -900 of" in rows(source)[0]["warnings"]


LANDSAT = "LC08_L2SP_038034_20230823_20230826_02_T1_SR_B4.TIF"


@pytest.mark.parametrize(
    ("other", "number", "noted"),
    [
        ("LC09_L2SP_038034_20230901_20230903_02_T1_SR_B4.TIF", 8000, False),
        ("LC08_L1TP_038034_20230823_20230826_02_T1_B4.TIF", 8000, True),
        ("S2A_MSIL2A_20210101_N0214_R122.tif", 8000, True),
        ("T33UUP_20230823T101559_B04_10m.tif", 8000, True),
        ("clipped.tif", 8000, False),
        ("clipped.tif", 2000, True),
    ],
)
def test_landsat_beside_numbers_of_another_meaning_is_named_with_its_scale(source, random, other, number, noted):
    use_bands(source, "red")
    source.write(LANDSAT, (8000 + optical(random)).astype("u2"))
    source.write(other, (number + optical(random)).astype("u2"), transform=OTHER_GROUND)
    source.write("s.tif", power(random))
    source.write("s2.tif", power(random), transform=OTHER_GROUND)
    source.sheet(f"a,{LANDSAT},s.tif,,train", f"b,{other},s2.tif,,train")
    source.take()
    found = rows(source)[0]["warnings"]
    what = f"{LANDSAT}: by its name its numbers mean 2.75e-05 * number -0.2, unlike those of {other}: "
    what += "give `optical_scale_factor` 2.75e-05 and `optical_add_offset` -0.2 in the sample sheet"
    assert found == (what if noted else "")
    (source.root / "scenes.csv").write_text(
        "scene,optical,sar,optical_scale_factor,optical_add_offset\n"
        f"a,{LANDSAT},s.tif,2.75e-5,-0.2\nb,{other},s2.tif,0.0001,0\n"
    )
    source.take()
    assert not any("by its name" in row["warnings"] for row in rows(source))


def test_sources_of_a_virtual_raster_have_their_own_offset(source, random):
    use_bands(source, "a", "b", "c")
    values = optical(random, 2)
    (old, _), (new, _) = (product(source, values, added) for added in (0, 1000))
    classes = source.write("scl_20m.jp2", np.full((SIZE, SIZE), 4, "u1"), **JP2)
    run = {"check": True, "cwd": source.root}
    subprocess.run(["gdalbuildvrt", "-q", "-separate", "o.vrt", new[1], classes, old[0]], **run)
    source.write("s.tif", power(random))
    source.sheet("a,o.vrt,s.tif,,train")
    found = read_float(align(source) / "optical.tif")
    np.testing.assert_array_equal(found, np.stack([values[1], np.full((SIZE, SIZE), 4), values[0]]))
    subprocess.run(["gdalbuildvrt", "-q", "-overwrite", "o.vrt", new[0], old[0]], **run)
    with pytest.raises(InputError, match=r"o\.vrt: is made of Sentinel-2 bands with and without the offset"):
        source.take()


def test_scenes_of_another_level_than_the_first_are_named(source, random):
    use_bands(source, "B02", "B03")
    source.write("s.tif", power(random))
    source.write("s2.tif", power(random), transform=OTHER_GROUND)
    cells = []
    for level, place in (("1C", None), ("2A", OTHER_GROUND)):
        paths, _ = product(source, optical(random, 2), 0, level, place)
        cells.append(f"{paths[0]};{paths[1]}")
    source.sheet(f"a,{cells[0]},s.tif,,train", f"b,{cells[1]},s2.tif,,train", f"c,{cells[0]},s.tif,,train")
    source.take()
    what = "optical is a product of reflectance at the surface, that of a at the top of the atmosphere"
    assert [what in row["warnings"] for row in rows(source)] == [False, True, False]


def test_products_on_a_server_have_the_offset_of_their_metadata(source, random, served, monkeypatch):
    url, _ = served
    monkeypatch.setenv("CPL_VSIL_CURL_ALLOWED_FILENAME", "none")
    use_bands(source, "B02", "B03")
    values = optical(random, 2)
    paths, metadata = product(source, values, 1000)
    shutil.move(metadata.parent, source.root / "served")
    source.write("s.tif", power(random))
    source.sheet(f"a,{delivered(url, paths, metadata)},s.tif,,train")
    source.source = source.source.model_copy(update={"remote": True})
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values)
    before = source.take().record("a").digests
    served_metadata = source.root / "served" / metadata.relative_to(source.root)
    served_metadata.write_text(served_metadata.read_text().replace("-1000", "-900"))
    names.read_address.cache_clear()
    names.stamp.cache_clear()
    assert source.take().record("a").digests != before
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values + 100.0)


@pytest.mark.parametrize(
    ("tags", "scaling"),
    [
        (["-a_scale", "0.0001"], ((1e-4, -0.1), (1e-4, -0.1))),
        (["-a_scale", "0.0001", "-a_offset", "-0.05"], ((1e-4, -0.05), (1e-4, -0.05))),
    ],
)
def test_a_tag_for_scale_alone_leaves_the_offset_of_the_metadata(source, random, tags, scaling):
    paths, _ = product(source, optical(random, 2), 1000)
    subprocess.run(["gdalbuildvrt", "-q", "-separate", "o.vrt", *paths], cwd=source.root, check=True)
    subprocess.run(["gdal_translate", "-q", "-of", "VRT", *tags, "o.vrt", "p.vrt"], cwd=source.root, check=True)
    header = RasterFile((str(source.root / "p.vrt"),)).header
    np.testing.assert_allclose(header.scaling, scaling, rtol=1e-12)
    assert header.is_tagged


@pytest.mark.parametrize("form", ["with a GeoTIFF", "of virtual rasters", "in a ZIP archive", "warped", "rescaled"])
def test_virtual_rasters_of_any_make_have_the_offset_of_their_sources(source, random, form):
    values = optical(random, 2)
    paths, metadata = product(source, values, 1000, "2A")
    run = {"check": True, "cwd": metadata.parent}
    if form == "with a GeoTIFF":
        paths[1] = source.write("index.tif", values[1])
    for number, path in enumerate(paths):
        arguments = ["-ot", "Int16", "-scale", "1000", "11000", "0", "10000"] if form == "rescaled" else []
        tool = ["gdalwarp", "-of", "VRT"] if form == "warped" else ["gdal_translate", "-of", "VRT", *arguments]
        subprocess.run([*tool, "-q", path, f"{number}.vrt"], **run)
    inner = paths if form in ("with a GeoTIFF", "in a ZIP archive") else ["0.vrt", "1.vrt"]
    relative = [path.relative_to(metadata.parent) if form == "in a ZIP archive" else path for path in inner]
    subprocess.run(["gdalbuildvrt", "-q", "-separate", "o.vrt", *relative], **run)
    name = f"{metadata.parent}/o.vrt"
    if form == "in a ZIP archive":
        archive = shutil.make_archive(str(metadata.parent), "zip", metadata.parent.parent, metadata.parent.name)
        name = f"/vsizip/{archive}/{metadata.parent.name}/o.vrt"
        shutil.rmtree(metadata.parent)
    expected = {"with a GeoTIFF": (-1000, 0), "rescaled": (0, 0)}.get(form, (-1000, -1000))
    assert RasterFile((name,)).header.product_offsets == expected


def test_an_ending_in_capital_letters_changes_nothing(source, random):
    use_bands(source, "B02", "B03")
    values = optical(random, 2)
    paths, metadata = product(source, values, 1000)
    renamed = [path.rename(path.with_suffix(".JP2")) for path in paths]
    source.write("s.tif", power(random))
    source.sheet(f"a,{renamed[0]};{renamed[1]},s.tif,,train")
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values)
    assert metadata in find_entries(source.source, source.root, source.sensors)[0].files


def test_no_offset_is_named_for_a_scene_whose_numbers_lack_it_already(source, random):
    use_bands(source, "B02", "B08")
    old, new = (
        [f"T33UUP_{day}T101559_{band}_10m.tif" for band in ("B02", "B08")] for day in ("20200823", "20230823")
    )
    source.write("s.tif", power(random))
    source.write("s2.tif", power(random), transform=OTHER_GROUND)
    for added in (1000, 0):
        for path, band in zip(old, (500, 2000), strict=True):
            source.write(path, band + optical(random) // 10)
        for path, band in zip(new, (500, 2000), strict=True):
            source.write(path, band + added + optical(random) // 10, transform=OTHER_GROUND)
        source.sheet(f"a,{';'.join(old)},s.tif,,train", f"b,{';'.join(new)},s2.tif,,train")
        source.take()
        assert ("give `optical_add_offset` -1000" in rows(source)[1]["warnings"]) == bool(added)


@pytest.mark.parametrize(("band", "meaning"), [("B05", (1e-4, 0)), ("B09", (1e-4, 0)), ("B10", (0.01, 0))])
def test_thermal_bands_of_hls_are_no_reflectance(band, meaning):
    assert meaning_by_name(f"HLS.L30.T33UUP.2023235T101559.v2.0.{band}.tif") == meaning
    assert meaning_by_name(f"HLS.S30.T33UUP.2023235T101559.v2.0.{band}.tif") == (1e-4, 0)


def test_a_folder_of_a_product_lists_its_bands(source, random):
    use_bands(source, "B02", "B03")
    _, metadata = product(source, optical(random, 2), 1000)
    source.write("s.tif", power(random))
    source.sheet(f"a,{metadata.parent},s.tif,,train")
    with pytest.raises(InputError, match=r"inside are .*_B02\.jp2"):
        source.take()
