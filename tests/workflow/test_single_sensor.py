"""A network that learnt from both sensors maps scenes of which one is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio

from tests.workflow.conftest import Snakemake
from tmcnet.config import DemoConfig
from tmcnet.raster.io.reader import read_float, read_grid, read_labels
from tmcnet.simulate.scene import simulate_scene

RUN = "mssnet-corrected__random__R100__s1"
CHANGE = """
source: {layout: scenes, sheet: scenes.csv}
finetune:
  modality_dropout: 0.3
  sweep: [{methods: [random], networks: [mssnet], fractions: [100], seeds: [1]}]
"""


def write_sheet(folder: Path, last_role: str = "predict") -> tuple[str, str]:
    """Simulated scenes: three to learn from, then one without SAR and one without optical image."""
    demo = DemoConfig(scenes=5, size=288)
    names = demo.scene_names
    rows = ["scene,optical,sar,label,role"]
    for name in names:
        simulate_scene(demo, name, folder / "demo" / name, cloud_share=0.1)
    for name in names[:3]:
        rows.append(",".join([name, *(f"demo/{name}/{kind}.tif" for kind in ("optical", "sar", "label")), "train"]))
    rows.append(f"{names[3]},demo/{names[3]}/optical.tif,,,predict")
    rows.append(f"{names[4]},,demo/{names[4]}/sar.tif,,{last_role}")
    (folder / "scenes.csv").write_text("\n".join(rows) + "\n")
    return names[3], names[4]


def test_scenes_with_one_sensor_are_mapped_and_never_learnt_from(snakemake: Snakemake, tmp_path: Path) -> None:
    optical_only, sar_only = write_sheet(tmp_path)
    done = snakemake("report", change=CHANGE, data_root=".", results_dir="out")
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    for scene, kind, missing in ((optical_only, "optical", "sar"), (sar_only, "sar", "optical")):
        there = tmp_path / "demo" / scene / f"{kind}.tif"
        with rasterio.open(out / "maps" / scene / f"{RUN}.tif") as dataset:
            assert dataset.colormap(1)
        drawn = read_labels(out / "maps" / scene / f"{RUN}.tif")
        np.testing.assert_array_equal(drawn != 255, np.isfinite(read_float(there)).any(axis=0))
        assert drawn[drawn != 255].max() < 6
        assert read_grid(out / "maps" / scene / f"{RUN}.tif") == read_grid(there)
        assert np.isnan(read_float(out / "scenes" / scene / f"{missing}.tif")).all()
        assert json.loads((out / "scenes" / scene / "alignment.json").read_text())["status"] == "single_sensor"
    index = pd.read_csv(out / "tiles" / "index.csv")
    assert index["scene"].nunique() == 3
    assert not set(index["scene"]) & {optical_only, sar_only}
    lists = "".join(path.read_text() for path in (out / "splits").glob("*.txt"))
    assert lists and optical_only not in lists and sar_only not in lists
    assert "One sensor only" in (out / "report.html").read_text()


def test_a_scene_with_one_sensor_cannot_be_learnt_from(snakemake: Snakemake, tmp_path: Path) -> None:
    _, sar_only = write_sheet(tmp_path, last_role="train")
    done = snakemake("report", change=CHANGE, data_root=".", results_dir="out")
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"line 6 ({sar_only}): names no file in `optical`" in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()
