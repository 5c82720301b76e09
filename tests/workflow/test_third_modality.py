"""A DEM as the third modality of scenes, from a sample sheet to the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from affine import Affine

from tests.workflow.conftest import Snakemake
from tmcnet.config import DemoConfig
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import read_float, read_grid
from tmcnet.raster.io.writer import write_raster
from tmcnet.simulate.scene import simulate_scene

RUNS = ("mssnet-corrected__tmcnet__R100__s1", "dem_only-baseline__random__R100__s1")
EXPORTED = "pixel_logistic-baseline__random__R100__s1"
"""The deep network of three is exported in `tests/train/test_training_of_three.py`, which takes a minute."""
CHANGE = """
source: {layout: scenes, sheet: scenes.csv}
sensors: {dem: {bands: [elevation], kind: elevation, display: [elevation]}}
finetune:
  sweep:
    - {methods: [tmcnet], networks: [mssnet], fractions: [100], seeds: [1]}
    - {networks: [dem_only, pixel_logistic], fractions: [100], seeds: [1]}
"""


def write_sheet(folder: Path) -> list[str]:
    """Simulated scenes with slopes of 30 m pixels that reach beyond them; the last one is mapped only, without."""
    demo = DemoConfig(scenes=4, size=288)
    names = demo.scene_names
    rows = ["scene,optical,sar,label,role,dem"]
    for number, name in enumerate(names):
        scene = folder / "demo" / name
        simulate_scene(demo, name, scene, cloud_share=0.1)
        grid = read_grid(scene / "optical.tif")
        coarse = Grid(grid.crs, grid.transform @ Affine.translation(-9, -9) @ Affine.scale(3), 110, 110)
        slope = np.add(*np.mgrid[:110, :110]).astype(np.float32)[None] + 100 * number
        write_raster(scene / "dem.tif", slope, coarse)
        files = [f"demo/{name}/{kind}.tif" for kind in ("optical", "sar", "label", "dem")]
        learnt = [*files[:3], "train", files[3]] if number < 3 else [*files[:2], "", "predict", ""]
        rows.append(",".join([name, *learnt]))
    (folder / "scenes.csv").write_text("\n".join(rows) + "\n")
    return names


def test_a_dem_takes_part_from_the_sheet_to_the_report(snakemake: Snakemake, tmp_path: Path) -> None:
    names = write_sheet(tmp_path)
    done = snakemake("report", f"results/models/{EXPORTED}/model.onnx", change=CHANGE, data_root=".")
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "results"
    assert read_grid(out / "scenes" / names[0] / "dem.tif") == read_grid(out / "scenes" / names[0] / "optical.tif")
    tiles = pd.read_csv(out / "tiles" / "index.csv")["tile"]
    assert {path.stem for path in (out / "tiles" / "dem").iterdir()} == set(tiles)
    assert np.isfinite(read_float(out / "tiles" / "dem" / f"{tiles[0]}.tif")).all()
    assert list(json.loads((out / "normalisation.json").read_text()))[:3] == ["optical", "sar", "dem"]
    assert "retrieval_dem_to_optical" in (out / "pretrain" / "tmcnet" / "curves.csv").read_text()
    scores = json.loads((out / "evaluate" / RUNS[0] / "metrics.json").read_text())
    assert list(scores["withheld"]) == ["optical", "sar", "dem"]
    assert all((out / "maps" / name / f"{RUNS[0]}.tif").exists() for name in names)
    assert "dem_only" in (out / "report.html").read_text()
    card = json.loads((out / "models" / EXPORTED / "card.json").read_text())
    assert list(card["inputs"]) == ["optical", "sar", "dem"]

    (out / "scenes" / names[0] / "dem.tif").unlink()
    again = snakemake("alignment", change=CHANGE, data_root=".", dry=True)
    assert re.findall(r"^(\w+) +(\d+)$", again.stdout, re.MULTILINE)[:1] == [("align_scene", "1")]


def test_a_scene_to_learn_from_without_its_dem_is_named(snakemake: Snakemake, tmp_path: Path) -> None:
    names = write_sheet(tmp_path)
    sheet = tmp_path / "scenes.csv"
    sheet.write_text(sheet.read_text().replace(f"demo/{names[1]}/dem.tif", ""))
    done = snakemake("report", change=CHANGE, data_root=".", dry=True)
    message = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in message
    assert f"line 3 ({names[1]}): names no file in `dem`" in message
