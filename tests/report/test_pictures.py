import io
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from PIL import Image

from tests.report import rendered
from tests.report.conftest import build_page
from tests.report.results_folder import CLASSES, write_raster
from tmcnet.classes import ClassTable
from tmcnet.config import Run
from tmcnet.report.charts import OKABE_ITO
from tmcnet.report.pictures import (
    NO_DATA,
    RIGHT,
    WRONG,
    Ground,
    MapSource,
    Painter,
    encode,
    limits_of,
    paint_classes,
    paint_confidence,
    paint_errors,
    read_classes,
    read_picture,
    shown_bands,
    stretch,
)
from tmcnet.report.results import Results
from tmcnet.report.sections_maps import MAX_EXAMPLES


def test_stretch_maps_limits_to_black_and_white_and_greys_no_data():
    image = np.array([[[0.0, 5, 10], [20, np.nan, -5]]], np.float32)
    shown = stretch(image, (np.array([0.0], np.float32), np.array([10.0], np.float32)))
    assert shown[..., 0].tolist() == [[0, 127, 255], [255, NO_DATA[0], 0]]
    assert (shown[1, 1] == NO_DATA).all()


def test_limits_survive_bands_without_data_or_contrast():
    image = np.stack([np.full((4, 4), np.nan), np.full((4, 4), 7.0)]).astype(np.float32)
    low, high = limits_of(image)
    assert np.isfinite(low).all() and (high > low).all()


def test_classes_and_errors_get_their_colours():
    table = ClassTable.of(CLASSES)
    ids = np.array([[0, 1], [255, 200]], np.uint8)
    assert paint_classes(ids, table).tolist() == [[[0x2B, 0x6C, 0xB0], [0x1B, 0x78, 0x37]], [list(NO_DATA)] * 2]
    errors = paint_errors(np.array([[0, 1, 255, 1]], np.uint8), np.array([[0, 2, 1, 255]], np.uint8))
    assert errors[0].tolist() == [list(RIGHT), list(WRONG), list(NO_DATA), list(NO_DATA)]
    sure = paint_confidence(np.array([[0, 100, 255]], np.uint8))
    assert (sure[0, 2] == NO_DATA).all() and sure[0, 1].sum() > sure[0, 0].sum()


def test_maps_keep_their_exact_colours_in_the_file():
    picture = paint_classes(np.arange(5, dtype=np.uint8)[None].repeat(3, 0), ClassTable.of(CLASSES))
    content, ending = encode(picture, photo=False)
    assert ending == "png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), picture)


def test_shown_bands_follow_the_config(full):
    assert shown_bands(full.config.sensors["optical"]) == [0, 1, 2]
    assert shown_bands(full.config.sensors["sar"]) == [0]


def test_decimated_reading_equals_slicing(tmp_path):
    data = np.random.default_rng(0).integers(0, 200, (1, 601, 333)).astype(np.uint8)
    write_raster(tmp_path / "a.tif", data, nodata=255, origin=(0, 0))
    for longest in (601, 100, 7):
        step = -(-601 // longest)
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tif", longest)[0], data[0, ::step, ::step])
    np.testing.assert_array_equal(
        read_picture(tmp_path / "a.tif", 50, (30, 7, 200, 150))[0], data[0, 30:230:4, 7:157:4]
    )
    np.testing.assert_array_equal(read_classes(tmp_path / "a.tif", 700), data[0])
    assert read_classes(tmp_path / "none.tif", 700) is None


def test_predictions_are_cut_at_the_window_of_the_tile(full):
    """The accuracy under each example must be the one that the evaluation found for that tile."""
    shown = [p.stem[5:-11] for p in (full.root / "report" / "figures").glob("tile_*_prediction.png")]
    assert len(shown) >= MAX_EXAMPLES
    archive = np.load(full.root / "evaluate" / Run.parse("mssnet-corrected__tmcnet__R100__s1").name / "tiles.npz")
    for tile in shown:
        confusion = archive["confusion"][archive["names"].tolist().index(tile)]
        assert f"Tile {tile}: {100 * np.trace(confusion) / confusion.sum():.1f} % of the labelled" in full.page


def test_virtual_tiles_are_shown_like_those_with_files(small):
    root, config = small
    run = next(path.stem for path in sorted(root.glob("maps/*/*.tif")) if "confidence" not in path.stem)
    source = MapSource(run, Run.parse(run))
    tile = next(path.stem for path in (root / "tiles" / "label").glob("*.tif"))

    def example():
        results = Results(root, config)
        return list(Painter(results, root / "pictures").examples([tile], source))

    shown = example()
    assert len(shown) == 1 and len(shown[0]["pictures"]) >= 5
    index = pd.read_csv(root / "tiles" / "index.csv", dtype=str)
    index["rasters"] = "../scenes/" + index["scene"]
    index.to_csv(root / "tiles" / "index.csv", index=False)
    for kind in ("optical", "sar", "label"):
        shutil.rmtree(root / "tiles" / kind)
    assert example() == shown


def test_tiles_whose_labels_were_seen_are_hatched_and_do_not_count(small):
    root, config = small
    run = next(iter(config.map_runs))

    def error(scene):
        results = Results(root, config)
        (found,) = (p for p in Painter(results, root / "p").overview(scene, [MapSource(run.name, run)])["pictures"]
                    if p["kind"] == "error")  # fmt: skip
        return found

    tile = (root / "splits" / f"{run.subset}_RGB.txt").read_text().split()[0]
    scene = tile.split("_")[0]
    seen = error(scene)
    label, guess = (read_classes(path, 256) for path in (
        root / "scenes" / scene / "label.tif", root / "maps" / scene / f"{run.name}.tif"))  # fmt: skip
    known = label != 255
    row, col = int(tile.split("_r")[1].split("_")[0]), int(tile.split("_c")[1])
    known[row : row + 64, col : col + 64] = False
    assert seen["hatched"] and seen["right"] == (label == guess)[known].mean()
    (root / "splits" / f"{run.subset}_RGB.txt").write_text("elsewhere\n")
    assert not error(scene)["hatched"]


def test_a_scene_without_labels_has_no_empty_panels(small):
    root, config = small
    run = next(iter(config.map_runs))
    write_raster(root / "scenes/alpha/label.tif", np.full((1, 256, 256), 255, np.uint8), nodata=255, origin=(0, 0))
    write_raster(
        root / "scenes/alpha/sar.tif", np.full((2, 256, 256), np.nan, np.float32), nodata=np.nan, origin=(0, 0)
    )
    gallery = Painter(Results(root, config), root / "p").overview("alpha", [MapSource(run.name, run)])
    assert [picture["kind"] for picture in gallery["pictures"]] == ["sensor", "map", "confidence"]


def test_the_ground_of_a_picture_gives_scale_and_north(small, tmp_path):
    path = small[0] / "scenes" / "alpha" / "label.tif"
    ground = Ground.of(path)
    assert ground.metres == pytest.approx(2560, rel=0.002) and ground.north_up and ground.bar == 500
    with rasterio.open(path) as file:
        profile, data = file.profile, file.read()
    turned = Affine.translation(500_000, 5_000_000) * Affine.rotation(30) * Affine.scale(10, -10)
    for name, change in {"turned": {"transform": turned}, "nowhere": {"crs": None}}.items():
        with rasterio.open(tmp_path / f"{name}.tif", "w", **{**profile, **change}) as file:
            file.write(data)
    assert not Ground.of(tmp_path / "turned.tif").north_up
    assert Ground.of(tmp_path / "nowhere.tif") is None


def test_a_broken_map_is_left_out(small):
    root, config = small
    for path in (root / "maps").glob("*/*.tif"):
        path.write_bytes(b"no raster")
    assert "there are no examples side by side" in build_page(root, config)


def test_a_model_from_elsewhere_is_shown_and_named_as_such(small):
    root, config = small
    run = next(iter(config.map_runs))
    for path in (root / "maps").glob(f"*/{run.name}.tif"):
        shutil.copy(path, path.with_name("older.tif"))
    other = config.model_copy(
        update={"maps": config.maps.model_copy(update={"models": {"older": "old/w.safetensors"}})}
    )
    page = build_page(root, other)
    assert "\u201colder\u201d is a network from elsewhere (old/w.safetensors, config key maps.models)" in page
    assert page.count('alt="older, from elsewhere: ') == 2
    assert "not scaled by" in page


def test_classes_whose_colours_some_readers_confuse_are_named(small):
    root, config = small
    names = [c.name for c in config.labels.classes]

    def page(colors):
        classes = [c.model_copy(update={"color": colors[c.name]}) for c in config.labels.classes]
        labels = config.labels.model_copy(update={"classes": classes})
        return build_page(root, config.model_copy(update={"labels": labels}))

    clear = dict(zip(names, OKABE_ITO, strict=False))
    assert "Some readers cannot" not in page(clear)
    confused = page({**clear, "forest": "#778833", "built-up": "#cc4433"})
    pair = "\u201cforest\u201d and \u201cbuilt-up\u201d"
    assert f"Some readers cannot distinguish the colours of these classes: {pair}" in rendered.text(confused)
