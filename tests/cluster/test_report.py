"""The tiny demo on two nodes, and what becomes of jobs that Slurm ends."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from tests.cluster.conftest import Cluster
from tmcnet.train.loop import STATE_FILE

pytestmark = pytest.mark.cluster
WEIGHTS = "results/pretrain/tmcnet/weights.safetensors"
LONG = "pretrain: {steps: 100000, checkpoint_every: 100000, log_every: 1000}\n"


@pytest.fixture(scope="module")
def done(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A finished report; it asked for a GPU for each training."""
    cluster = Cluster(slurm, tmp_path_factory.mktemp("report"))
    made = cluster.run("report", options=("--resources", "gpu=2"))
    assert made.returncode == 0, made.stdout + made.stderr
    return cluster


def jobs(cluster: Cluster) -> list[list[str]]:
    """Comment, node and GPUs of all jobs of the cluster; the comment names the rule."""
    command = ["squeue", "--states=all", "--noheader", "--Format=Comment:150,NodeList:20,tres-per-job:40"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=cluster.environment)
    return [[line[:150].strip(), line[150:170].strip(), line[170:].strip()] for line in found.stdout.splitlines()]


def files(cluster: Cluster) -> dict[Path, int]:
    """Time of each result, without logs and records of time."""
    results = cluster.folder / "results"
    other = ("logs", "benchmarks", ".state")
    return {f: f.stat().st_mtime_ns for f in results.rglob("*") if f.is_file() and not {*f.parts} & {*other}}


def test_the_report_is_made_on_two_nodes(done: Cluster) -> None:
    assert (done.folder / "results" / "report.html").is_file()
    run = jobs(done)
    assert {node for _, node, _ in run} == {"node1", "node2"}
    trained = [gpus for comment, _, gpus in run if re.search("pretrain_method|finetune_run", comment)]
    assert len(trained) == 2 and all("gpu" in gpus for gpus in trained)
    local = "track|write_report|summarise|take_inventory|merge_index"
    assert not [comment for comment, _, _ in run if re.search(local, comment)]


def test_touched_raw_files_plan_nothing_and_lose_nothing(done: Cluster) -> None:
    raw = sorted((done.folder / "data").rglob("*.tif"))
    assert raw
    for file in raw:
        os.utime(file)
    planned = done.run("report", options=("--dry-run",))
    assert planned.returncode == 0 and "Nothing to be done" in planned.stdout + planned.stderr
    (score,) = (done.folder / "results" / "evaluate").glob("*/metrics.json")
    before, ran = files(done), len(jobs(done))
    score.unlink()
    again = done.run(str(score.relative_to(done.folder)), options=("--resources", "gpu=2"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(jobs(done)) == ran + 1 and "evaluate_run" in str(jobs(done))
    after = files(done)
    assert after.keys() == before.keys()
    changed = {file.name for file, age in after.items() if age != before[file]}
    assert not changed & {"index.csv", "alignment.json", "manifest.json", "weights.safetensors"}
    assert not [file for file, age in after.items() if age != before[file] and "tiles" in file.parent.parts]


def test_two_nodes_train_as_one_process(done: Cluster) -> None:
    curves = (done.folder / WEIGHTS).with_name("curves.csv")
    alone = list(csv.DictReader(curves.open()))
    made = done.run(WEIGHTS, change="compute: {nodes: 2, devices: 1}", options=("--forcerun", "pretrain_method"))
    assert made.returncode == 0, made.stdout + made.stderr
    assert [nodes for rule, nodes, _ in jobs(done) if "pretrain_method" in rule and "[" in nodes] == ["node[1-2]"]
    shared = list(csv.DictReader(curves.open()))
    for row, expected in zip(shared, alone, strict=True):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-3)


def test_a_job_above_its_memory_is_explained_and_a_retry_gets_more(done: Cluster) -> None:
    small = ("--set-resources", "pretrain_method:mem_mb=1000 * attempt ** 2")
    made = done.run(WEIGHTS, change="model: {backbone: resnet50, width: 64}", options=small)
    said = made.stdout + made.stderr
    assert made.returncode == 0, said
    assert "SLURM status is: 'OUT_OF_MEMORY'" in said or "SLURM status is: 'FAILED'" in said
    assert re.search(r"The job uses \d+ of 1000 MB; if it is ended now, it needs more: --set-resources", said), said


def freeze(state: Path) -> None:
    """Stop a training after its first checkpoint, until the scheduler ends it; then it has had no time to finish."""
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b".pretrain_method.py" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGSTOP)


def test_a_job_above_its_time_is_explained_and_resumes(done: Cluster) -> None:
    change = "pretrain: {steps: 100, checkpoint_every: 5, log_every: 100}"
    short = ("--set-resources", "pretrain_method:runtime=1 if attempt == 1 else 60")
    freezer = Thread(target=freeze, args=[done.folder / "results" / ".state" / "pretrain" / "tmcnet" / STATE_FILE])
    freezer.start()
    made = done.run(WEIGHTS, change=change, options=short)
    freezer.join()
    said = made.stdout + made.stderr
    assert made.returncode == 0, said
    assert re.search(r"SIGTERM after step \d+ of 100; the state is saved. A retry goes on from there", said), said
    assert re.search(r"ended from outside after [\d.]+ of 1 minutes: its time limit", said), said
    log = (done.folder / "results" / "logs" / "pretrain" / "tmcnet.log").read_text()
    assert re.search(r"resumes after step [1-9]", log), log


def test_a_cancelled_job_is_noticed_within_a_minute(done: Cluster) -> None:
    command = done.command(WEIGHTS, change=LONG, options=("--retries", "0"))
    out = done.folder / "out.txt"
    with out.open("w") as file:
        run = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=done.environment)
        log = done.folder / "results" / "logs" / "pretrain" / "tmcnet.log"
        log.unlink()
        deadline = time.monotonic() + 120
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.5)
        subprocess.run(["scancel", "--state=RUNNING", "--user", str(os.getuid())], check=True, env=done.environment)
        cancelled = time.monotonic()
        while "CANCELLED" not in out.read_text():
            assert time.monotonic() - cancelled < 60, out.read_text()
            time.sleep(0.5)
        assert run.wait(timeout=90) != 0
