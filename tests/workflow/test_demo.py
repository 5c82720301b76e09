"""A small demo: it runs to the end, repeats nothing, and reruns only what a change affects."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from tests.workflow.conftest import Snakemake
from tmcnet.config import ComputeConfig


def test_the_demo_from_scenes_to_report(snakemake: Snakemake, tmp_path: Path) -> None:
    done = snakemake("report", "verify_splits", "seed_layout")
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "results"
    for name in ("alder", "birch", "cedar"):
        record = json.loads((results / "scenes" / name / "alignment.json").read_text())
        assert {"status", "model", "matrix", "n_points", "n_inliers", "rmse_px", "reason"} <= set(record)
        assert (results / "maps" / name / "mssnet-corrected__tmcnet__R5__s1.tif").exists()
    index = pd.read_csv(results / "tiles" / "index.csv")
    assert {"tile", "scene", "valid_share", "share_water"} <= set(index)
    metrics = pd.read_csv(results / "metrics.csv")
    names = "method network variant fraction seed oa kappa miou mf1 ece n_tiles n_pixels"
    assert list(metrics.columns[:12]) == names.split()
    assert (results / "seed" / "class_dict.txt").exists()
    assert not list((results / ".state").glob("*/*"))

    assert planned(snakemake, "") == set()
    assert planned(snakemake, "report: {title: Another heading}") == {"write_report"}
    assert planned(snakemake, "evaluate: {bootstrap: 150}") == {"summarise", "track", "write_report"}
    after_training = planned(snakemake, "finetune: {weight_decay: 0.5}")
    assert "finetune_run" in after_training
    assert not after_training & {"align_scene", "make_tiles", "make_splits", "pretrain_method"}

    machine = "compute: {cache_gib: 0.5, job_gib: 3, pretrain_threads: 2, finetune_threads: 2, devices: 2}"
    assert planned(snakemake, machine) == set()
    numerics = planned(snakemake, "compute: {precision: bf16-mixed}", "evaluate", "maps")
    assert numerics == {
        "pretrain_method",
        "finetune_run",
        "evaluate_run",
        "summarise",
        "map_scene",
        "style_map",
        "list_maps",
        "write_model",
    }


def test_jobs_request_memory_in_megabytes() -> None:
    compute = ComputeConfig(cache_gib=1.5, job_gib=2.5)
    assert compute.memory_mb(cached=True) == 4295  # 4 GiB in MB
    assert compute.memory_mb(cached=False) == 2684
    assert compute.numerics() == {"accelerator": "auto", "precision": "auto"}


def planned(snakemake: Snakemake, change: str, *targets: str) -> set[str]:
    """The rules that would run for the report, or for the given targets, after a change of the config."""
    done = snakemake(*(targets or ("report",)), change=change, dry=True)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(\w+) +\d+$", done.stdout + done.stderr, re.MULTILINE)
    return set(rows) - {"report", "evaluate", "maps", "total"}
