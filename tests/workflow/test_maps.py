"""Maps of networks from files, beside those of the sweep."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from tests.workflow.conftest import ROOT, RUN, Project, Snakemake, planned_jobs


def test_a_network_from_a_file_draws_the_same_maps(project: Project) -> None:
    failed = project.call("maps", change="maps: {models: {earlier: nowhere.safetensors}}")
    message = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert "config key `maps.models`: no such file: `earlier`: nowhere.safetensors. Correct the path" in message
    assert "Traceback" not in message

    shutil.copy(project.results / "finetune" / RUN / "weights.safetensors", project.folder / "given.safetensors")
    given = "maps: {models: {earlier-1.0: given.safetensors}}"
    assert project.plan(given, "maps") == {"map_scene": 2, "list_maps": 1, "maps": 1}
    project.run("maps", change=given.replace("{models", "{polygons: true, minimum_mapping_unit: 500, models"))
    for scene in ("alder", "birch"):
        folder = project.results / "maps" / scene
        for ending in ("", "_confidence"):
            own, other = (folder / f"{name}{ending}.tif" for name in (RUN, "earlier-1.0"))
            with rasterio.open(own) as first, rasterio.open(other) as second:
                assert (first.read() == second.read()).all()
        ask = ["ogrinfo", "-so", str(folder / "earlier-1.0.gpkg"), "land_cover"]
        assert "area_m2" in subprocess.run(ask, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow  # the strips themselves are tested in tests/evaluate/test_maps.py
def test_a_giant_scene_is_mapped_by_several_jobs_with_the_same_files(project: Project) -> None:
    target = f"results/maps/alder/{RUN}.tif"
    folder = project.results / "maps" / "alder"
    whole = {file.name: file.read_bytes() for file in folder.glob(f"{RUN}*")}
    strips = "maps: {strip_megapixels: 0.03}\n"
    assert project.plan(strips, target) == {"map_strip": 3, "map_scene": 1}
    project.run(target, change=strips)
    assert {file.name: file.read_bytes() for file in folder.glob(f"{RUN}*")} == whole
    assert not list(folder.glob(".*strip*"))


MODELS_ALONE = """
source: {layout: scenes, sheet: scenes.csv}
sensors: {optical: {bands: [b, g, r]}, sar: {bands: [vv], scale: linear}}
maps: {models: {theirs: given.safetensors}}
"""


def test_networks_from_files_need_no_labels_and_no_training(tmp_path: Path) -> None:
    """In a folder of one's own, without the demo's settings."""
    for name in ("optical.tif", "sar.tif", "given.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "scenes.csv").write_text("scene,optical,sar,role\nnorth,optical.tif,sar.tif,predict\n")
    (tmp_path / "mine.yaml").write_text(MODELS_ALONE)
    command = [str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
    command += ["--dry-run", "--configfile", "mine.yaml", "--config", "data_root=.", "--"]
    made = {"inspect_scene": 1, "take_inventory": 1, "align_scene": 1, "map_scene": 1, "list_maps": 1}
    for target, more in {"maps": {}, "report": {"write_report": 1}}.items():
        done = subprocess.run([*command, target], capture_output=True, text=True, cwd=tmp_path)
        assert planned_jobs(done) == made | more | {target: 1}
    catalogue = [
        str(ROOT / "workflow" / "Snakefile") if part == str(ROOT / "Snakefile") else part for part in command
    ]
    done = subprocess.run(catalogue[:-1], capture_output=True, text=True, cwd=tmp_path)
    assert planned_jobs(done) == made | {"write_report": 1, "everything": 1}, "the whole report without a target"


def test_an_unknown_run_of_a_map_is_named(snakemake: Snakemake) -> None:
    failed = snakemake("results/maps/mssnet.csv")
    message = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert f"mssnet is not a run of `finetune.sweep`. The runs are: {RUN}." in message
