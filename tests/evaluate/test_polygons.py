import json
import subprocess

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from tmcnet.classes import ClassTable
from tmcnet.evaluate import polygons
from tmcnet.evaluate.polygons import merge_small, write_polygons
from tmcnet.raster.io.geometry import Grid, pixel_area, reproject_points
from tmcnet.raster.io.writer import write_raster

CLASSES = ClassTable.of([('Äcker, "wet"', "#0000ff"), ("land", "#00ff00"), ("forest", "#004400")])
UTM = Grid("EPSG:32633", Affine(10, 0, 500000, 0, -10, 5200000), 60, 50)


def patchy(height=50, width=60, seed=0, sigma=1.0):
    """Class ids in patches of a few pixels, with void at the edge, a void hole, and an islet in it."""
    random = np.random.default_rng(seed)
    ids = np.argmax([ndimage.gaussian_filter(random.normal(size=(height, width)), sigma) for _ in range(3)], axis=0)
    ids = ids.astype(np.uint8)
    ids[:, :4] = 255
    ids[20:30, 20:30] = 255
    ids[24:26, 24:26] = 1
    return ids


def patches(ids):
    """Class and size of each patch."""
    for k in np.unique(ids[ids != 255]):
        numbers, _ = ndimage.label(ids == k)
        yield from ((int(k), int(size)) for size in np.bincount(numbers.ravel())[1:])


def draw(folder, ids, grid=UTM, unit=0.0):
    """The GeoPackage of a map, read back by GDAL: the features as GeoJSON in map coordinates, and GDAL's words."""
    write_raster(folder / "map.tif", ids, grid, nodata=255, classes=CLASSES)
    write_polygons(folder / "map.tif", CLASSES, unit, folder / "map.gpkg")
    assert sorted(p.name for p in folder.iterdir()) == ["map.gpkg", "map.tif"]
    ask = {"capture_output": True, "text": True, "check": True}
    text = [
        "ogr2ogr",
        "-f",
        "GeoJSONSeq",
        "-a_srs",
        "EPSG:4326",
        "/vsistdout/",
        str(folder / "map.gpkg"),
        "land_cover",
    ]
    lines = subprocess.run(text, **ask).stdout.splitlines()
    said = subprocess.run(["ogrinfo", "-so", str(folder / "map.gpkg"), "land_cover"], **ask).stdout
    return [json.loads(line) for line in lines], said


def test_every_patch_becomes_a_polygon_with_class_and_area(tmp_path):
    ids = patchy()
    found, said = draw(tmp_path, ids)
    properties = [feature["properties"] for feature in found]
    assert sorted((p["class_id"], p["area_m2"]) for p in properties) == sorted(
        (k, 100.0 * n) for k, n in patches(ids)
    )
    assert {(p["class_id"], p["class"]) for p in properties} == {(c.id, c.name) for c in CLASSES.classes}
    assert sum(p["area_m2"] for p in properties) == 100 * (ids != 255).sum()
    assert 'ID["EPSG",32633]' in said
    assert "Geometry: Polygon" in said
    assert "Extent: (500040.000000, 5199500.000000) - (500600.000000, 5200000.000000)" in said


def test_polygons_lie_where_the_pixels_are(tmp_path):
    """A ring around a hole, on a turned grid."""
    ids = np.full((8, 9), 255, np.uint8)
    ids[1:5, 2:7] = 2
    ids[2, 3] = 0
    grid = Grid("EPSG:32633", Affine(8, 3, 500000, 3, -8, 5200000), 9, 8)
    found, _ = draw(tmp_path, ids, grid)
    (ring,) = (f for f in found if f["properties"]["class_id"] == 2)
    outer, hole = ring["geometry"]["coordinates"]
    pixels = [{tuple(np.round(~grid.transform @ tuple(point), 6)) for point in part} for part in (outer, hole)]
    assert pixels == [{(2, 1), (7, 1), (7, 5), (2, 5)}, {(3, 2), (4, 2), (4, 3), (3, 3)}]
    assert ring["properties"]["area_m2"] == pytest.approx(19 * 73)


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_small_patches_join_their_neighbours(tmp_path, sigma):
    ids = patchy(sigma=sigma)
    assert min(n for _, n in patches(ids)) < 12
    found, _ = draw(tmp_path, ids, unit=1150.0)
    areas = sorted(f["properties"]["area_m2"] for f in found)
    assert areas[0] == 400  # the islet in void has no neighbour
    assert areas[1] >= 1200
    assert sum(areas) == 100 * (ids != 255).sum()


def test_the_largest_neighbour_takes_a_patch():
    ids = np.zeros((9, 9), np.uint8)
    ids[:, 6:] = 1
    ids[4, 5] = 2
    assert merge_small(ids, 2)[4, 5] == 0
    ids[:, 2:5] = 1
    assert merge_small(ids, 2)[4, 5] == 1


@settings(max_examples=40)
@given(arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 2, 255])), st.integers(0, 30))
def test_void_neither_grows_nor_shrinks_and_no_patch_beside_a_large_one_stays_small(ids, size):
    merged = merge_small(ids, size)
    assert ((merged == 255) == (ids == 255)).all()
    islands, count = ndimage.label(ids != 255)
    for island in range(1, count + 1):
        part = np.where(islands == island, merged, 255)
        sizes = [n for _, n in patches(part)]
        assert min(sizes) >= size or max(sizes) < size
    if size <= 1:
        assert (merged == ids).all()


def test_a_map_without_a_reference_is_measured_in_pixels(tmp_path):
    ids = patchy()
    found, said = draw(tmp_path, ids, grid=None, unit=12)
    areas = sorted(f["properties"]["area_pixels"] for f in found)
    assert areas[0] == 4
    assert areas[1] >= 12
    assert sum(areas) == (ids != 255).sum()
    assert 'ENGCRS["Undefined Cartesian SRS"' in said
    assert "Extent: (4.000000, 0.000000) - (60.000000, 50.000000)" in said


def test_degrees_become_square_metres(tmp_path):
    ids = patchy()
    grid = Grid("EPSG:4326", Affine(1e-4, 0, 15.0, 0, -1e-4, 60.0), 60, 50)
    found, said = draw(tmp_path, ids, grid)
    assert sum(f["properties"]["area_m2"] for f in found) == pytest.approx(pixel_area(grid) * (ids != 255).sum())
    assert 'ID["EPSG",4326]' in said
    assert "Extent: (15.000400, 59.995000) - (15.006000, 60.000000)" in said


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:3395", "EPSG:4326"])
def test_areas_and_the_smallest_patch_are_those_on_the_ground(tmp_path, crs):
    """One pixel of UTM or Mercator has a quarter of its area at 60 degrees north."""
    ids = np.zeros((50, 60), np.uint8)
    ids[10:14, 10:14], ids[30:36, 30:36] = 1, 2
    (x,), (y,) = reproject_points("EPSG:4326", crs, np.array([15.0]), np.array([60.0]))
    side = 10.0 if crs != "EPSG:4326" else 1e-4
    grid = Grid(crs, Affine(side, 0, x, 0, -side, y), 60, 50)
    exact = {k: sum(pixel_area(grid.window((row, 0, 1, 1))) * n for row, n in enumerate((ids == k).sum(axis=1)))
             for k in range(3)}  # fmt: skip
    found = {f["properties"]["class_id"]: f["properties"]["area_m2"] for f in draw(tmp_path, ids, grid)[0]}
    assert found == {k: pytest.approx(area, rel=1e-6) for k, area in exact.items()}
    between = (exact[1] + exact[2]) / 2
    (tmp_path / "map.gpkg").unlink()
    assert {f["properties"]["class_id"] for f in draw(tmp_path, ids, grid, unit=between)[0]} == {0, 2}


def test_a_map_of_nothing_has_the_same_fields(tmp_path):
    found, said = draw(tmp_path, np.full((50, 60), 255, np.uint8), unit=500)
    assert found == []
    assert all(field in said for field in ("class_id: Integer", "class: String", "area_m2: Real"))
    assert 'ID["EPSG",32633]' in said


def test_nothing_is_left_behind_where_gdal_fails(tmp_path, monkeypatch):
    def fail(*_arguments):
        raise RuntimeError

    write_raster(tmp_path / "map.tif", patchy(), UTM, nodata=255)
    (tmp_path / "map.gpkg").write_text("of an earlier run")
    monkeypatch.setattr(polygons, "run_tool", fail)
    with pytest.raises(RuntimeError):
        write_polygons(tmp_path / "map.tif", CLASSES, 0, tmp_path / "map.gpkg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.gpkg", "map.tif"]
    assert (tmp_path / "map.gpkg").read_text() == "of an earlier run"
