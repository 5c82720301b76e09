"""Vector labels: places, order, overlaps, buffers and attributes, in each format and through the inventory."""

import csv
import json
import math

import numpy as np
import pytest
import rasterio
from affine import Affine

from tmcnet.classes import ClassTable
from tmcnet.config import LabelsConfig
from tmcnet.errors import InputError
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.geometry import Grid, reproject_points
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.vector import NO_CODE, rasterise_labels

GRID = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000), 64, 64)
CLASSES = [{"name": "water", "codes": [1], "color": "#0000ff"}, {"name": "land", "codes": [2, 3], "color": "#00ff00"}]


def labels(**keys):
    return LabelsConfig(void=[0], classes=CLASSES, **keys)


def square(left, top, right, bottom):
    """Corners in pixels of the grid, as map coordinates."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return {"type": "Polygon", "coordinates": [[list(GRID.transform @ c) for c in corners]]}


def write(path, *features, crs="EPSG:32633"):
    """Features are pairs of a geometry in the CRS of the grid and its class."""
    rows = [{"type": "Feature", "geometry": g, "properties": {"class": c}} for g, c in features]
    named = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{GRID.crs[5:]}"}}
    source = path.parent / "source.geojson"
    source.write_text(json.dumps({"type": "FeatureCollection", "crs": named, "features": rows}))
    run_tool("ogr2ogr", "-t_srs", crs, path, source)
    source.unlink()
    return path


def burn(path, out, grid=GRID, **keys):
    """Warnings and codes."""
    warnings, _ = rasterise_labels(path, labels(**keys), grid, out)
    with rasterio.open(out) as dataset:
        assert (dataset.crs, dataset.transform, dataset.nodata) == (
            rasterio.CRS.from_string(grid.crs),
            grid.transform,
            NO_CODE,
        )
        return warnings, dataset.read(1)


@pytest.mark.parametrize("ending", ["gpkg", "geojson", "shp", "fgb"])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_pixels_whose_centre_is_in_a_feature_get_its_code(tmp_path, ending, crs):
    if (ending, crs) == ("geojson", "EPSG:32633"):
        crs = "EPSG:3857"
    path = write(tmp_path / f"l.{ending}", (square(10, 20, 30.4, 40.6), "water"), (square(40, 0, 64, 64), 3), crs=crs)
    warnings, codes = burn(path, tmp_path / "out.tif")
    expected = np.full((64, 64), NO_CODE)
    expected[20:41, 10:30], expected[:, 40:] = 1, 3
    np.testing.assert_array_equal(codes, expected)
    assert not warnings


def test_the_last_feature_is_on_top_and_overlaps_of_classes_are_counted(tmp_path):
    path = write(
        tmp_path / "l.gpkg", (square(0, 0, 20, 20), 1), (square(10, 0, 30, 20), 2), (square(10, 0, 20, 10), 2)
    )
    warnings, codes = burn(path, tmp_path / "out.tif")
    assert (codes[:20, :10] == 1).all() and (codes[:20, 10:30] == 2).all()
    assert warnings == ["features of different classes overlap on 200 label pixels"]


@pytest.mark.parametrize("ending", ["gpkg", "geojson", "shp"])
def test_many_features_have_the_order_of_the_file(tmp_path, ending):
    random = np.random.default_rng(0)
    left, top = random.integers(-300, 300, (2, 3000))  # most of them elsewhere, as in the label of many scenes
    side = random.choice([5, 100], 3000)
    classes = random.integers(1, 4, 3000)
    features = [(square(x, y, x + s, y + s), int(c)) for x, y, s, c in zip(left, top, side, classes, strict=True)]
    path = write(tmp_path / f"l.{ending}", *features, crs="EPSG:4326" if ending == "geojson" else GRID.crs)
    _, codes = burn(path, tmp_path / "out.tif")
    painted = np.full((64, 64), NO_CODE)
    for x, y, s, c in zip(left, top, side, classes, strict=True):
        painted[max(y, 0) : max(y + s, 0), max(x, 0) : max(x + s, 0)] = c
    np.testing.assert_array_equal(codes, painted)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_points_and_lines_count_up_to_their_buffer_in_metres(tmp_path, crs):
    x, y = GRID.transform @ (20, 20)
    point = {"type": "MultiPoint", "coordinates": [[x, y]]}
    line = {"type": "LineString", "coordinates": [list(GRID.transform @ p) for p in ((40, 10), (40, 50), (50, 50))]}
    path = write(tmp_path / "l.gpkg", (point, 1), (line, 2), crs=crs)
    with pytest.raises(InputError, match=r"labels\.buffer"):
        rasterise_labels(path, labels(), GRID, tmp_path / "none.tif")
    _, codes = burn(path, tmp_path / "out.tif", buffer=75.0)
    rows, columns = np.indices((64, 64)) + 0.5
    near = np.hypot(columns - 20, rows - 20) < 7.5
    assert abs(int((codes == 1).sum()) - int(near.sum())) <= 6
    assert (codes[10:48, 33:47] == 2).all() and (codes[43:57, 40:50] == 2).all() and codes[20, 49] == NO_CODE


def test_a_buffer_is_in_metres_on_grids_in_degrees_too(tmp_path):
    lon, lat = reproject_points(GRID.crs, "EPSG:4326", *(np.array([v]) for v in GRID.transform @ (32, 32)))
    grid = Grid("EPSG:4326", Affine(1e-4, 0, lon[0] - 0.0032, 0, -1e-4, lat[0] + 0.0032), 64, 64)
    point = {"type": "Point", "coordinates": list(GRID.transform @ (32, 32))}
    _, codes = burn(write(tmp_path / "l.gpkg", (point, 1)), tmp_path / "out.tif", grid, buffer=100.0)
    wide, high = ((codes == 1).any(axis=axis).sum() for axis in (0, 1))
    assert high == pytest.approx(200 / 11.12, abs=1.1)
    assert wide == pytest.approx(200 / 11.13 / math.cos(math.radians(lat[0])), abs=1.1)


def test_features_without_a_class_are_void_and_unknown_classes_are_named(tmp_path):
    path = write(tmp_path / "l.gpkg", (square(0, 0, 9, 9), "land"), (square(20, 20, 30, 30), None))
    warnings, codes = burn(path, tmp_path / "out.tif")
    assert warnings == ["1 label features have no `class`: void"]
    assert (codes != NO_CODE).sum() == 81 and codes[25, 25] == NO_CODE
    path = write(tmp_path / "m.gpkg", (square(0, 0, 9, 9), "forest"), (square(0, 0, 9, 9), "water"))
    with pytest.raises(InputError, match=r"has 1 values that no class has: `forest` \(1 features\)"):
        burn(path, tmp_path / "out.tif")


@pytest.mark.parametrize("ending", ["gpkg", "geojson", "shp"])
@pytest.mark.parametrize("buffer", [0, 20])
def test_features_without_a_usable_place_are_counted(tmp_path, ending, buffer):
    flat = {"type": "Polygon", "coordinates": [[[500_010, 5_399_990], [500_200, 5_399_800], [500_010, 5_399_990]]]}
    bad = [None, {"type": "Polygon", "coordinates": []}, flat]
    path = write(
        tmp_path / f"l.{ending}", *((place, 1) for place in (*bad, square(900, 0, 950, 9), square(0, 0, 9, 9)))
    )
    warnings, codes = burn(path, tmp_path / "out.tif", buffer=buffer)
    unusable = "features whose geometry is missing, empty, not finite or without area: no label"
    assert warnings == [f"l.{ending} has 3 {unusable}"] and (codes != NO_CODE).sum() == 81


def test_coordinates_that_are_not_finite_are_counted(tmp_path):
    square_with_nan = json.loads(json.dumps(square(20, 20, 30, 30)))
    square_with_nan["coordinates"][0][1][0] = math.nan
    bad = square_with_nan, {"type": "MultiPoint", "coordinates": []}, {"type": "Point", "coordinates": [math.inf, 0]}
    path = write(tmp_path / "l.geojson", *((place, 1) for place in (*bad, square(0, 0, 9, 9))))
    assert burn(path, tmp_path / "out.tif", buffer=20)[0][0].startswith("l.geojson has 3 features whose geometry")


def test_a_triangle_that_is_not_closed_counts(tmp_path):
    (ring,) = square(0, 0, 20, 20)["coordinates"]
    path = write(tmp_path / "l.geojson", ({"type": "Polygon", "coordinates": [ring[:3]]}, 1))
    assert (burn(path, tmp_path / "out.tif")[1] == 1).sum() == pytest.approx(200, abs=20)


@pytest.mark.parametrize("code", [2**31 - 1, 3301010101, 2**32 - 1, 2**53 + 1])
def test_large_codes_are_exact(tmp_path, code):
    classes = [{"name": f"c{n}", "codes": [code - n], "color": f"#00000{n}"} for n in range(3)]
    path = write(tmp_path / "l.gpkg", (square(0, 0, 9, 9), code), (square(20, 20, 30, 30), code - 1))
    rasterise_labels(path, own := LabelsConfig(classes=classes), GRID, tmp_path / "out.tif")
    ids = LabelCoder(own, ClassTable.of((c.name, c.color) for c in own.classes)).read(tmp_path / "out.tif")
    assert (ids[5, 5], ids[25, 25], ids[50, 50]) == (0, 1, 255)


def test_names_of_classes_may_differ_in_capitals_and_composed_characters(tmp_path):
    classes = [{"name": "Forêt", "codes": [4], "color": "#00ff00"}, CLASSES[0]]
    path = write(tmp_path / "l.geojson", (square(0, 0, 9, 9), "fore\u0302t"), (square(20, 20, 30, 30), "WATER"))
    rasterise_labels(path, LabelsConfig(classes=classes), GRID, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        codes = dataset.read(1)
    assert codes[5, 5] == 4 and codes[25, 25] == 1


def test_what_is_missing_is_named(tmp_path):
    path = write(tmp_path / "l.gpkg", (square(0, 0, 9, 9), 1))
    with pytest.raises(InputError, match="has no attribute `code`; its attributes are class"):
        burn(path, tmp_path / "out.tif", attribute="code")
    with pytest.raises(InputError, match="has no feature on the scene"):
        burn(write(tmp_path / "far.gpkg", (square(900, 0, 950, 9), 1)), tmp_path / "out.tif")
    with pytest.raises(InputError, match=r"bare\.shp: has no CRS"):
        bare = write(tmp_path / "bare.shp", (square(0, 0, 9, 9), 1))
        bare.with_suffix(".prj").unlink()
        burn(bare, tmp_path / "out.tif")
    run_tool("ogr2ogr", "-update", "-nln", "second", path, path)
    with pytest.raises(InputError, match=r"has 2 layers: .*second"):
        burn(path, tmp_path / "out.tif")


def test_a_vector_label_goes_through_the_inventory(source):
    source.scene("a")
    write(source.root / "a.gpkg", (square(0, 0, 32, 64), "land"), (square(16, 0, 24, 64), "water"), (None, "land"))
    source.sheet("a,a_o.tif,a_s.tif,a.gpkg,train")
    (record,) = source.take().records
    assert record.label.grid == GRID and len(record.digests) == 3
    with source.json.with_suffix(".csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["label_file"].endswith("a.gpkg") and float(row["label_scene_share"]) == 0.5
    assert "features of different classes overlap on 512 label pixels" in row["warnings"]
    assert "a.gpkg has 1 features whose geometry is missing" in row["warnings"]
    ids = LabelCoder(source.labels, ClassTable.of((c.name, c.color) for c in source.labels.classes)).read(
        record.label
    )
    assert np.bincount(ids.ravel()).nonzero()[0].tolist() == [0, 1, 255] and (ids[:, 16:24] == 0).all()
    first = record.label.files[0].paths
    write(source.root / "a.gpkg", (square(0, 0, 32, 64), "water"))
    assert source.take().records[0].label.files[0].paths != first


def test_every_file_of_a_shapefile_counts(source):
    source.scene("a")
    write(source.root / "a.shp", (square(0, 0, 32, 64), "land"))
    source.sheet("a,a_o.tif,a_s.tif,a.shp,train")
    assert len(source.take().records[0].digests) >= 3 + len((".dbf", ".prj", ".shx"))


def test_vector_labels_need_georeferenced_scenes(tile_source, write_png_tile):
    write_png_tile(tile_source, "p", "1")
    write(tile_source.root / "p" / "l_1.gpkg", (square(0, 0, 9, 9), 1))
    tile_source.source = tile_source.source.model_copy(update={"label": "{part}/l_{tile:d}.gpkg"})
    with pytest.raises(InputError, match="the images are not georeferenced"):
        tile_source.take()


def test_tables_without_places_beside_the_layer_are_left_out(tmp_path):
    """QGIS saves the styles of a layer in such a table."""
    path = write(tmp_path / "a.gpkg", (square(5, 5, 20, 20), 1))
    (tmp_path / "layer_styles.csv").write_text("styleName,class\nfields,2\n")
    run_tool("ogr2ogr", "-update", "-nln", "layer_styles", path, tmp_path / "layer_styles.csv")
    assert (burn(path, tmp_path / "out.tif")[1] == 1).sum() == 15 * 15


def test_a_feature_that_lacks_the_attribute_is_void(tmp_path):
    path = write(tmp_path / "a.geojson", (square(5, 5, 20, 20), 1), (square(30, 5, 40, 20), 2), crs="EPSG:4326")
    path.write_text(path.read_text().replace('"class": 2', '"other": 2'))
    warnings, codes = burn(path, tmp_path / "out.tif")
    assert warnings == ["1 label features have no `class`: void"] and set(np.unique(codes)) == {NO_CODE, 1}


def test_text_in_an_unknown_encoding_is_named(tmp_path):
    path = write(tmp_path / "a.shp", (square(5, 5, 20, 20), "Wälder"))
    for name in ("b.shp", "c.shp"):
        run_tool("ogr2ogr", "-lco", "ENCODING=CP1252", tmp_path / name, path)
    (tmp_path / "c.cpg").unlink()
    classes = [
        {"name": "Wälder", "codes": [1], "color": "#0000ff"},
        {"name": "land", "codes": [2], "color": "#00ff00"},
    ]
    own = LabelsConfig(classes=classes)
    assert rasterise_labels(tmp_path / "b.shp", own, GRID, tmp_path / "out.tif") == ([], True)
    with pytest.raises(InputError, match=r"c\.shp: has text whose encoding is not known"):
        rasterise_labels(tmp_path / "c.shp", own, GRID, tmp_path / "out.tif")


def test_polygons_between_the_centres_of_pixels_are_counted(tmp_path):
    small = square(30.6, 5.6, 31.4, 5.9), square(30.4, 5.4, 30.6, 5.6), square(70.6, 5.6, 70.9, 5.9)
    path = write(tmp_path / "a.gpkg", *((place, 1) for place in (*small, square(5, 5, 20, 20))))
    warnings, codes = burn(path, tmp_path / "out.tif")
    assert (codes == 1).sum() == 15 * 15 + 1
    assert warnings == ["1 label polygons lie between the centres of pixels: no label"]


@pytest.mark.parametrize(
    ("west", "labels_west"), [(200, -160), (-160, 200), (179.9968, -180.0032), (-180.0032, 179.9968)]
)
@pytest.mark.parametrize("ending", ["gpkg", "geojson"])
def test_longitudes_count_modulo_a_turn(tmp_path, west, labels_west, ending):
    grid = Grid("EPSG:4326", Affine(1e-4, 0, west, 0, -1e-4, 10), 64, 64)
    features = []
    for first, last in ((10, 20), (40, 64)):
        left, right = (labels_west + column * 1e-4 for column in (first, last))
        ring = [[left, 10], [right, 10], [right, 9.9964], [left, 9.9964], [left, 10]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "geometry": geometry, "properties": {"class": 1}})
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    if ending == "gpkg":
        run_tool("ogr2ogr", tmp_path / "a.gpkg", path)
    _, codes = burn(tmp_path / f"a.{ending}", tmp_path / "out.tif", grid)
    expected = np.full((64, 64), NO_CODE)
    expected[:36, 10:20] = expected[:36, 40:] = 1
    np.testing.assert_array_equal(codes, expected)


GRIDS_AT_180 = [
    Grid("EPSG:4326", Affine(1e-3, 0, 179.96, 0, -1e-3, 10), 64, 64),
    Grid("EPSG:32601", Affine(100, 0, 161_000, 0, -100, 1_105_000), 64, 64),
]


@pytest.mark.parametrize("grid", GRIDS_AT_180, ids=["degrees", "metres"])
def test_features_that_are_not_cut_at_the_180th_meridian_are_refused(tmp_path, grid):
    for west, east in ((179, -179), (-180, 180)):
        ring = [[west, 11], [east, 11], [east, 9], [west, 9], [west, 11]]
        feature = {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"class": 1},
        }
        path = tmp_path / "a.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
        if west > east:
            with pytest.raises(
                InputError, match=r"a\.geojson: has a feature from longitude -179 to 179, which means"
            ):
                burn(path, tmp_path / "out.tif", grid)
        elif grid.is_geographic:
            assert (burn(path, tmp_path / "out.tif", grid)[1] == 1).all()


def test_long_edges_are_straight_in_the_crs_of_the_file(tmp_path):
    grid = Grid("EPSG:32633", Affine(100, 0, 450_000, 0, -100, 5_450_000), 1000, 1000)
    corners = [[14.4, 48.5], [15.6, 48.5], [15.6, 49], [14.4, 49], [14.4, 48.5]]
    geometry = {"type": "Polygon", "coordinates": [corners]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"class": 1}}
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    _, codes = burn(path, tmp_path / "out.tif", grid)
    column, row = np.meshgrid(np.arange(1000) + 0.5, np.arange(1000) + 0.5)
    lon, lat = reproject_points(grid.crs, "EPSG:4326", *(grid.transform @ (column, row)))
    inside = (lon > 14.4) & (lon < 15.6) & (lat > 48.5) & (lat < 49)
    np.testing.assert_array_equal(codes == 1, inside)


def test_metres_in_a_geojson_without_crs_are_refused_by_name(tmp_path):
    rows = [{"type": "Feature", "geometry": square(0, 0, 20, 20), "properties": {"class": 1}}]
    path = tmp_path / "l.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": rows}))
    what = r"l\.geojson: has coordinates from 500000 to 500200, but its CRS is in degrees .*ogr2ogr -a_srs"
    with pytest.raises(InputError, match=what):
        rasterise_labels(path, labels(), GRID, tmp_path / "out.tif")
