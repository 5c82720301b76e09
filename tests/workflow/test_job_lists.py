"""Which jobs a change plans: exactly those that depend on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.workflow.conftest import ROOT, RUN, Project, planned_jobs
from tmcnet.cli import main

RECORDS = {"track": 1, "write_report": 1, "report": 1}
TRAINING = {"make_splits": 1, "normalise": 1, "pretrain_method": 1, "finetune_run": 1, "evaluate_run": 1}
TRAINING |= {"write_model": 1}
MAPS = {"map_scene": 1, "list_maps": 1}


@pytest.fixture(scope="module")
def project(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One for all tests of this module, which leave it as it is."""
    folder = tmp_path_factory.mktemp("project") / "copy"
    shutil.copytree(finished, folder)
    return Project(folder)


def test_every_stage_leaves_its_files(project: Project) -> None:
    results = project.results
    for name in project.scenes[:2]:
        record = json.loads((results / "scenes" / name / "alignment.json").read_text())
        assert {"status", "model", "matrix", "n_points", "n_inliers", "rmse_px", "reason"} <= set(record)
        assert (results / "maps" / name / f"{RUN}.tif").exists()
    index = pd.read_csv(results / "tiles" / "index.csv")
    assert {"tile", "scene", "valid_share", "share_water"} <= set(index)
    metrics = pd.read_csv(results / "metrics.csv")
    names = "method network variant fraction seed oa kappa miou mf1 ece n_tiles n_pixels"
    assert list(metrics.columns[:12]) == names.split()
    assert (results / "seed" / "class_dict.txt").exists()
    assert not list((results / ".state").glob("*/*"))


def test_a_finished_project_plans_nothing_nor_do_new_times_of_raw_files(project: Project) -> None:
    assert project.plan() == {}
    for path in project.folder.glob("*/*.tif"):
        path.touch()
    assert project.plan() == {}


def test_only_a_new_version_of_the_code_reruns_its_stage(project: Project, tmp_path: Path) -> None:
    for name in ("Snakefile", "workflow", "profiles"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    later = time.time() + 60
    for path in tmp_path.rglob("*"):
        os.utime(path, (later, later))
    assert project.plan(clone=tmp_path) == {}
    rules = tmp_path / "workflow" / "rules" / "common.smk"
    rules.write_text(re.sub('"finetune": [0-9]+', '"finetune": 99', rules.read_text()))
    trained = {"finetune_run": 1, "evaluate_run": 1, "write_model": 1, "summarise": 1}
    assert project.plan(clone=tmp_path) == trained | {"map_scene": 2, "list_maps": 1} | RECORDS


def test_a_new_scene_to_map_adds_its_own_jobs(project: Project) -> None:
    with project.sheet("predict"):
        plan = project.plan()
    assert plan == {"inspect_scene": 1, "take_inventory": 1, "align_scene": 1} | MAPS | RECORDS


def test_a_new_scene_to_learn_from_leaves_the_others_as_they_are(project: Project) -> None:
    with project.sheet("train"):
        plan = project.plan()
    raster = {"inspect_scene": 1, "take_inventory": 1, "align_scene": 1, "tile_scene": 1, "merge_index": 1}
    maps = {"map_scene": 3, "list_maps": 1}
    assert plan == raster | TRAINING | maps | {"group_tiles": 1, "summarise": 1} | RECORDS


def test_names_and_colours_of_classes_change_no_pixel(project: Project) -> None:
    classes = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["labels"]["classes"]
    styled = {"map_scene": 2, "list_maps": 1} | RECORDS
    classes[0] |= {"color": "#112233"}
    assert project.plan(yaml.safe_dump({"labels": {"classes": classes}})) == styled
    classes[0] |= {"name": "lake"}
    assert project.plan(yaml.safe_dump({"labels": {"classes": classes}})) == styled | {"summarise": 1}


def test_the_report_alone_depends_on_its_title_and_metric(project: Project) -> None:
    assert project.plan("report: {title: Another heading}") == {"write_report": 1, "report": 1}
    assert project.plan("report: {metric: oa}") == RECORDS


def test_the_bands_of_pictures_change_the_report_alone(project: Project) -> None:
    assert project.plan("sensors: {optical: {display: [nir, red, green]}, sar: {display: [vh]}}") == RECORDS


def test_settings_repeat_the_stages_that_they_change(project: Project) -> None:
    assert project.plan("evaluate: {bootstrap: 150}") == {"summarise": 1} | RECORDS
    training = project.plan("finetune: {weight_decay: 0.5}")
    assert "finetune_run" in training
    assert not set(training) & {"align_scene", "merge_index", "make_splits", "pretrain_method"}
    machine = "compute: {cache_gib: 0.5, job_gib: 3, pretrain_threads: 2, finetune_threads: 2, devices: 2}"
    assert project.plan(machine) == {}
    numerics = {"pretrain_method", "finetune_run", "evaluate_run", "summarise", "write_model"} | set(MAPS)
    assert set(project.plan("compute: {precision: bf16-mixed}", "evaluate", "maps")) == numerics | {
        "evaluate",
        "maps",
    }


def test_another_row_of_the_sweep_trains_its_run_only(project: Project) -> None:
    first = "{methods: [tmcnet], networks: [mssnet], fractions: [5], seeds: [1]}"
    second = "{networks: [pixel_logistic], fractions: [100], seeds: [1]}"
    plan = project.plan(f"finetune: {{sweep: [{first}, {second}]}}")
    added = {"finetune_run": 1, "evaluate_run": 1, "map_scene": 2, "list_maps": 1, "summarise": 1}
    added |= {"write_model": 1}
    assert plan == added | RECORDS


def test_self_training_adds_students_and_teachers_and_changes_no_other_run(project: Project) -> None:
    first = "{methods: [tmcnet], networks: [mssnet], fractions: [5], seeds: [1]}"
    second = "{methods: [self-training-2], networks: [pixel_mlp], fractions: [5], seeds: [1], maps: false}"
    sweep = f"sweep: [{first}, {second}]"
    added = {"evaluate_run": 1, "summarise": 1} | RECORDS
    # two rounds, and as teacher the mean of two classifiers, or a network that is there already
    assert project.plan(f"finetune: {{{sweep}}}") == added | {"finetune_run": 5}
    teacher = "self_training: {teacher: mssnet, start: tmcnet}"
    assert project.plan(f"finetune: {{{teacher}, {sweep}}}") == added | {"finetune_run": 2}


def test_a_lost_tile_is_made_again_and_nothing_else(project: Project) -> None:
    tile = next((project.results / "tiles" / "sar").glob("alder_*.tif"))
    pixels = tile.read_bytes()
    with project.damaged(tile, None):
        assert project.plan() == {"tile_scene": 1, "merge_index": 1, "report": 1}
        assert project.plan() == {"tile_scene": 1, "merge_index": 1, "report": 1}
        project.run("report")
        assert tile.read_bytes() == pixels
    assert project.plan() == {}


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        (f"maps/{{}}/{RUN}.tif", {"map_scene": 1, "list_maps": 1}),
        (f"models/{RUN}/model.safetensors", {"write_model": 1}),
    ],
)
def test_deleted_maps_and_networks_are_made_again(project: Project, name: str, plan: dict[str, int]) -> None:
    with project.damaged(project.results / name.format(project.scenes[0]), None):
        assert project.plan() == plan | RECORDS


@pytest.mark.parametrize("name", ["tiles/sar/alder_r0_c0.tif", "scenes/alder/alignment.json"])
def test_what_was_lost_does_not_hide_changed_settings(project: Project, name: str) -> None:
    change = "finetune: {weight_decay: 0.5}"
    trained = project.plan(change)
    with project.damaged(project.results / name, None):
        assert project.plan(change) == project.plan() | trained
        plan = planned_jobs(project.call("report", change=change, dry=True, source="{crs: EPSG:32633}"))
    assert plan.items() >= (TRAINING | {"inspect_scene": 2, "map_scene": 2}).items()


def test_a_changed_sidecar_reruns_what_its_scene_is_used_for(project: Project) -> None:
    sidecar = project.folder / "alder" / "sar.tif.aux.xml"
    sidecar.write_text("<PAMDataset/>")
    plan = project.plan()
    sidecar.unlink()
    raster = {"inspect_scene": 1, "take_inventory": 1, "align_scene": 1, "tile_scene": 1, "merge_index": 1}
    maps = {"map_scene": 2, "list_maps": 1}
    assert plan == raster | TRAINING | maps | {"group_tiles": 1, "summarise": 1} | RECORDS


ALIGNED = {"align_scene": 1, "tile_scene": 1, "merge_index": 1} | MAPS | RECORDS


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("inventory/alder.json", {"inspect_scene": 1, "take_inventory": 1} | ALIGNED),
        ("inventory.json", {"take_inventory": 1, "write_report": 1, "report": 1}),
        ("scenes/alder/alignment.json", ALIGNED),
        ("tiles/index/alder.json", {"tile_scene": 1, "merge_index": 1, "report": 1}),
    ],
)
def test_a_damaged_record_is_made_again_and_nothing_is_trained(
    project: Project, name: str, plan: dict[str, int]
) -> None:
    with project.damaged(project.results / name, b'{"half": '):
        assert project.plan() == plan
        assert project.plan() == plan, "a dry run removes the damaged file"


COPIED = [*(f"tiles/{name}" for name in ("index.csv", "classes.csv", "source.json")), "normalisation.json"]
COPIED += [f"splits/{name}" for name in ("manifest.json", "tiles.csv", "train_RGB.txt", "trainR5_RGB.txt")]


@pytest.mark.parametrize("content", [None, b"{", b"tile,scene\n"])
def test_small_files_that_trainings_depend_on_are_put_back(project: Project, content: bytes | None) -> None:
    files = [project.results / name for name in COPIED]
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink() if content is None else path.write_bytes(content)
    assert project.plan() == {}
    assert [path.read_bytes() for path in files] == before


def test_what_was_put_back_does_not_hide_a_change(project: Project) -> None:
    lost = project.results / "splits" / "manifest.json"
    with project.damaged(lost, None):
        assert project.plan("splits: {seed: 3}").items() >= TRAINING.items()
        assert not lost.exists()


def test_a_damaged_record_does_not_hide_a_change(project: Project) -> None:
    with project.damaged(project.results / "scenes" / "alder" / "alignment.json", b"{"), project.sheet("train"):
        assert project.plan().items() >= TRAINING.items()
        assert project.plan("tiles: {min_valid: 0.4}").items() >= TRAINING.items()


def test_the_command_draws_the_map_of_the_workflow(project: Project) -> None:
    files = [
        part for name in ("optical", "sar") for part in (f"--{name}", str(project.folder / "alder" / f"{name}.tif"))
    ]
    weights, out = project.results / "finetune" / RUN / "weights.safetensors", project.folder / "single" / "map.tif"
    assert main(["predict", str(weights), *files, "--out", str(out), "--window", "64", "--overlap", "16"]) == 0
    assert out.read_bytes() == (project.results / "maps" / "alder" / f"{RUN}.tif").read_bytes()


def test_a_new_name_of_a_class_is_in_maps_tables_and_report(project: Project) -> None:
    classes = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["labels"]["classes"]
    classes[0] |= {"name": "lake"}
    change = yaml.safe_dump({"labels": {"classes": classes}})
    kept = [
        project.results / name
        for name in (f"finetune/{RUN}/weights.safetensors", f"maps/alder/.{RUN}_prediction.tif")
    ]
    times = [path.stat().st_mtime_ns for path in kept]
    project.run("report", change=change)
    assert [path.stat().st_mtime_ns for path in kept] == times, "no network was trained or used"
    assert "lake" in (project.results / "maps" / "alder" / f"{RUN}.tif.aux.xml").read_text()
    for name in (f"alder/{RUN}.qml", f"alder/{RUN}_areas.csv", f"{RUN}_areas.csv"):
        text = (project.results / "maps" / name).read_text()
        assert "lake" in text and "water" not in text
    header = (project.results / "metrics.csv").read_text().splitlines()[0]
    assert "iou_lake" in header and "iou_water" not in header
    page = (project.results / "report.html").read_text()
    assert "lake" in page and not re.search(r"\bwater\b", page)
    assert project.plan(change) == {}
