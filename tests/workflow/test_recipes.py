"""Every published layout runs from its folder to the report, on look-alikes of a few dozen pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import rasterio

from tests.workflow import lookalikes
from tests.workflow.conftest import Snakemake


@pytest.mark.parametrize(
    ("recipe", "make", "classes"),
    [
        pytest.param("whu-opt-sar", lookalikes.whu_opt_sar, 7, marks=pytest.mark.slow),
        pytest.param("yeseg-opt-sar", lookalikes.yeseg_opt_sar, 7, marks=pytest.mark.slow),
        pytest.param("dfc2020", lookalikes.dfc2020, 8, marks=pytest.mark.slow),
        pytest.param("sen12ms", lookalikes.sen12ms, 10, marks=pytest.mark.slow),
        pytest.param("potsdam", lookalikes.potsdam, 6, marks=pytest.mark.slow),
        ("seed-layout", lookalikes.seed_layout, 3),
    ],
)
def test_a_recipe_runs_to_its_report(
    snakemake: Snakemake, tmp_path: Path, recipe: str, make: Callable[[Path], Path], classes: int
) -> None:
    done = snakemake("report", recipe=recipe, data_root=str(make(tmp_path / "raw")), results_dir="out")
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    assert "<html" in (out / "report.html").read_text()[:500]
    metrics = pd.read_csv(out / "metrics.csv")
    assert len(metrics) == 1
    assert metrics["oa"].between(0, 1).all()
    assert sum(column.startswith("iou_") for column in metrics) == classes
    maps = pd.read_csv(next((out / "maps").glob("*.csv")))
    with rasterio.open(next(iter((out / "maps").glob("*/mssnet*R5__s1.tif")))) as dataset:
        assert dataset.colormap(1)
        assert dataset.dtypes == ("uint8",)
    assert len(maps) >= 2


def test_given_label_lists_are_used_as_they_are(snakemake: Snakemake, tmp_path: Path) -> None:
    raw = lookalikes.seed_layout(tmp_path / "raw")
    done = snakemake("splits", recipe="seed-layout", data_root=str(raw), results_dir="out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "splits" / "trainR5_RGB.txt").read_text().split() == ["t003", "t007"]
    assert set((tmp_path / "out" / "splits" / "test_RGB.txt").read_text().split()) == {f"v{n:03d}" for n in range(6)}


def test_areas_are_never_torn_apart(snakemake: Snakemake, tmp_path: Path) -> None:
    raw = lookalikes.yeseg_opt_sar(tmp_path / "raw")
    done = snakemake("splits", recipe="yeseg-opt-sar", data_root=str(raw), results_dir="out")
    assert done.returncode == 0, done.stdout + done.stderr
    areas = [
        {name.split("_")[0] for name in (tmp_path / "out" / "splits" / f"{part}_RGB.txt").read_text().split()}
        for part in ("train", "val", "test")
    ]
    assert all(areas)
    assert sum(map(len, areas)) == len(set.union(*areas)) == 5
