"""A DEM as the third modality, and scenes of which images are missing, from a sample sheet to the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine

from tests.workflow.conftest import Snakemake
from tmcnet.config import DemoConfig
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import read_float, read_grid, read_labels
from tmcnet.raster.io.writer import write_raster
from tmcnet.simulate.scene import simulate_scene

RUN = "mssnet-corrected__tmcnet__R100__s1"
CHANGE = """
source: {layout: scenes, sheet: scenes.csv}
sensors: {dem: {bands: [elevation], kind: elevation, display: [elevation]}}
finetune:
  modality_dropout: 0.3
  sweep:
    - {methods: [tmcnet], networks: [mssnet], fractions: [100], seeds: [1]}
    - {networks: [dem_only], fractions: [100], seeds: [1], maps: false}
"""
GIVEN = {2: ("optical", "sar"), 3: ("optical",), 4: ("sar",)}
"""Images of the scenes that are mapped only."""


def write_sheet(folder: Path) -> list[str]:
    """Simulated scenes with slopes of 30 m pixels that reach beyond them; those that are mapped only lack images."""
    demo = DemoConfig(scenes=5, size=288)
    names = demo.scene_names
    rows = ["scene,optical,sar,dem,label,role"]
    for number, name in enumerate(names):
        scene = folder / "demo" / name
        simulate_scene(demo, name, scene, cloud_share=0.1)
        grid = read_grid(scene / "optical.tif")
        coarse = Grid(grid.crs, grid.transform @ Affine.translation(-9, -9) @ Affine.scale(3), 110, 110)
        slope = np.add(*np.mgrid[:110, :110]).astype(np.float32)[None] + 100 * number
        write_raster(scene / "dem.tif", slope, coarse)
        given = GIVEN.get(number, ("optical", "sar", "dem", "label"))
        files = [f"demo/{name}/{kind}.tif" if kind in given else "" for kind in ("optical", "sar", "dem", "label")]
        rows.append(",".join([name, *files, "predict" if number in GIVEN else "train"]))
    (folder / "scenes.csv").write_text("\n".join(rows) + "\n")
    return names


def test_images_take_part_from_the_sheet_to_the_report(snakemake: Snakemake, tmp_path: Path) -> None:
    names = write_sheet(tmp_path)
    done = snakemake("report", change=CHANGE, data_root=".")
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "results"
    assert read_grid(out / "scenes" / names[0] / "dem.tif") == read_grid(out / "scenes" / names[0] / "optical.tif")
    index = pd.read_csv(out / "tiles" / "index.csv")
    assert {path.stem for path in (out / "tiles" / "dem").iterdir()} == set(index["tile"])
    assert np.isfinite(read_float(out / "tiles" / "dem" / f"{index['tile'][0]}.tif")).all()
    assert list(json.loads((out / "normalisation.json").read_text()))[:3] == ["optical", "sar", "dem"]
    assert "retrieval_dem_to_optical" in (out / "pretrain" / "tmcnet" / "curves.csv").read_text()
    scores = json.loads((out / "evaluate" / RUN / "metrics.json").read_text())
    assert list(scores["withheld"]) == ["optical", "sar", "dem"]
    assert all((out / "maps" / name / f"{RUN}.tif").exists() for name in names)
    page = (out / "report.html").read_text()
    assert "dem_only" in page and "One sensor only" in page

    assert set(index["scene"]) == set(names[:2]), "scenes that are mapped only are never learnt from"
    lists = "".join(path.read_text() for path in (out / "splits").glob("*.txt"))
    assert lists and not any(names[number] in lists for number in GIVEN)
    for number, kind, missing in ((3, "optical", "sar"), (4, "sar", "optical")):
        scene, there = names[number], tmp_path / "demo" / names[number] / f"{kind}.tif"
        with rasterio.open(out / "maps" / scene / f"{RUN}.tif") as dataset:
            assert dataset.colormap(1)
        drawn = read_labels(out / "maps" / scene / f"{RUN}.tif")
        np.testing.assert_array_equal(drawn != 255, np.isfinite(read_float(there)).any(axis=0))
        assert drawn[drawn != 255].max() < 6
        assert read_grid(out / "maps" / scene / f"{RUN}.tif") == read_grid(there)
        assert np.isnan(read_float(out / "scenes" / scene / f"{missing}.tif")).all()
        assert json.loads((out / "scenes" / scene / "alignment.json").read_text())["status"] == "single_sensor"

    (out / "scenes" / names[0] / "dem.tif").unlink()
    again = snakemake("alignment", change=CHANGE, data_root=".", dry=True)
    assert re.findall(r"^(\w+) +(\d+)$", again.stdout, re.MULTILINE)[:1] == [("align_scene", "1")]


@pytest.mark.parametrize("kind", ["optical", "dem"])
def test_a_scene_to_learn_from_without_an_image_is_named(snakemake: Snakemake, tmp_path: Path, kind: str) -> None:
    names = write_sheet(tmp_path)
    sheet = tmp_path / "scenes.csv"
    sheet.write_text(sheet.read_text().replace(f"demo/{names[1]}/{kind}.tif", ""))
    done = snakemake("report", change=CHANGE, data_root=".")
    message = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in message
    assert f"line 3 ({names[1]}): names no file in `{kind}`" in message
    assert not (tmp_path / "results").exists()
