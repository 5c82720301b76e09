"""Eight concurrent trainings, killed and run again: MLflow holds every run and every point once."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, TINY

EIGHT = """
splits: {fractions: [100]}
finetune:
  sweep: [{networks: [pixel_logistic], fractions: [100], seeds: [1, 2, 3, 4, 5, 6, 7, 8]}]
tracking: {weights: false}
"""


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    layers = [str(ROOT / "config" / "config.yaml"), *(str(folder / name) for name in ("tiny.yaml", "eight.yaml"))]
    command = [
        *(str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile")),
        *("--directory", str(folder), "--cores", "8", *more, "--configfile", *layers, "--", "results/tracking.csv"),
    ]
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, cwd=ROOT, start_new_session=True)


def kill_once(folder: Path, pattern: str, at_least: int) -> None:
    """Start the workflow, and kill it with all its jobs as soon as at least this many files match."""
    process = start(folder)
    while process.poll() is None and len(list((folder / "results").glob(pattern))) < at_least:
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed:\n" + log_of(folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert start(folder, "--unlock").wait() == 0, log_of(folder)


def log_of(folder: Path) -> str:
    return (folder / "log.txt").read_text()


@pytest.mark.slow
def test_eight_trainings_killed_and_run_again_are_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "eight.yaml").write_text(EIGHT)
    kill_once(tmp_path, "finetune/*/summary.json", 3)
    assert not (tmp_path / "results" / "tracking.csv").exists()
    kill_once(tmp_path, "mlflow.db", 1)  # while the runs are recorded
    assert start(tmp_path).wait() == 0, log_of(tmp_path)

    from mlflow import MlflowClient

    results = tmp_path / "results"
    client = MlflowClient(f"sqlite:///{results}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    names = [f"pixel_logistic-baseline__random__R100__s{seed}" for seed in range(1, 9)]
    assert sorted(run.info.run_name for run in found) == sorted(["demo", "tmcnet", *names])
    trained = [run for run in found if run.data.tags["kind"] != "sweep"]
    for run in trained:
        with (results / run.data.tags["kind"] / run.info.run_name / "curves.csv").open(newline="") as file:
            curves = list(csv.DictReader(file))
        written = sorted(
            (f"curve/{column}", int(row["step"]), float(value))
            for row in curves
            for column, value in row.items()
            if column != "step" and value
        )
        held = sorted(
            (point.key, point.step, point.value)
            for name in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, name)
        )
        assert written and [point for point in held if point[0].startswith("curve/")] == written
        assert len(held) == len(set(held))
    assert sum("miou" in run.data.metrics for run in trained) == 8
