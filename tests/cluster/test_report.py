"""The tiny demo on two nodes, and what becomes of jobs that Slurm ends."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from tests.cluster.conftest import Cluster

pytestmark = pytest.mark.cluster
WEIGHTS = "results/pretrain/tmcnet/weights.safetensors"
STATE = "results/.state/pretrain/tmcnet/training.ckpt"
AGAIN = ("--forcerun", "pretrain_method")
LONG = "pretrain: {steps: 100000, checkpoint_every: 100000, log_every: 1000}\n"


def wait_for(condition: Callable[[], object], seconds: float, every: float = 0.5) -> None:
    """Wait until something holds, at most for some time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(every)


def files(cluster: Cluster) -> dict[Path, int]:
    """Time of each result, without logs and records of time."""
    results = cluster.folder / "results"
    other = ("logs", "benchmarks", ".state")
    return {f: f.stat().st_mtime_ns for f in results.rglob("*") if f.is_file() and not {*f.parts} & {*other}}


def test_the_report_is_made_on_two_nodes(finished: Path) -> None:
    assert (finished / "results" / "report.html").is_file()
    run = json.loads((finished / "jobs.json").read_text())
    assert {node for _, node, _ in run} == {"node1", "node2"}
    trained = [gpus for comment, _, gpus in run if re.search("pretrain_method|finetune_run", comment)]
    assert len(trained) == 2 and all("gpu" in gpus for gpus in trained)
    local = "track|write_report|summarise|take_inventory|merge_index"
    assert not [comment for comment, _, _ in run if re.search(local, comment)]


def test_touched_raw_files_plan_nothing_and_lose_nothing(cluster: Cluster) -> None:
    raw = sorted((cluster.folder / "data").rglob("*.tif"))
    assert raw
    for file in raw:
        os.utime(file)
    planned = cluster.run("report", options=("--dry-run",))
    assert planned.returncode == 0 and "Nothing to be done" in planned.stdout + planned.stderr
    (score,) = (cluster.folder / "results" / "evaluate").glob("*/metrics.json")
    before, ran = files(cluster), len(cluster.jobs())
    score.unlink()
    again = cluster.run(str(score.relative_to(cluster.folder)), options=("--resources", "gpu=2"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(cluster.jobs()) == ran + 1 and "evaluate_run" in str(cluster.jobs())
    after = files(cluster)
    assert after.keys() == before.keys()
    changed = {file.name for file, age in after.items() if age != before[file]}
    assert not changed & {"index.csv", "alignment.json", "manifest.json", "weights.safetensors"}
    assert not [file for file, age in after.items() if age != before[file] and "tiles" in file.parent.parts]


def test_two_nodes_train_as_one_process(cluster: Cluster) -> None:
    curves = (cluster.folder / WEIGHTS).with_name("curves.csv")
    alone = list(csv.DictReader(curves.open()))
    # Of three GPUs on each node, every node gives two: without being asked, Slurm takes all of the first one.
    made = cluster.run(WEIGHTS, change="compute: {nodes: 2, devices: 2}", options=(*AGAIN, "--resources", "gpu=4"))
    assert made.returncode == 0, made.stdout + made.stderr
    (job,) = [row[1:] for row in cluster.jobs() if "pretrain_method" in row[0] and "[" in row[1]]
    assert job == ["node[1-2]", "gres:gpu:4"]
    shared = list(csv.DictReader(curves.open()))
    # In single precision, Adam enlarges rounding from step to step: 0.03 after 40. In double precision, all steps are
    # compared in tests/train/test_distributed.py.
    for step, (row, expected) in enumerate(zip(shared, alone, strict=True)):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-3 if step < 3 else 0.1)


# Python starts it in the process of a training: it takes 2 GB once there is a checkpoint. The first one then stops,
# so that it cannot finish before Slurm has looked at its memory.
GROWS = """
import os, signal, sys, threading, time
from pathlib import Path

def grow():
    while not Path("{state}").exists():
        time.sleep(0.01)
    first = not Path("grown").exists()
    Path("grown").touch()
    kept = bytearray(2_000_000_000)
    if first:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)

if "pretrain_method.py" in sys.orig_argv[-1]:
    threading.Thread(target=grow, daemon=True).start()
"""


def test_a_job_above_its_memory_is_explained_and_a_retry_gets_more_and_resumes(cluster: Cluster) -> None:
    weights = (cluster.folder / WEIGHTS).read_bytes()
    (cluster.folder / "sitecustomize.py").write_text(GROWS.format(state=STATE))
    cluster.environment |= {"PYTHONPATH": str(cluster.folder)}
    made = cluster.run(WEIGHTS, change="compute: {job_gib: 1, cache_gib: 0.2}", options=AGAIN)
    said = made.stdout + made.stderr
    assert made.returncode == 0, said
    assert "SLURM status is: 'OUT_OF_MEMORY'" in said or "SLURM status is: 'FAILED'" in said
    assert re.search(r"The job uses \d+ of 1788 MB; if it is ended now, it needs more: --set-resources", said), said
    log = (cluster.folder / "results" / "logs" / "pretrain" / "tmcnet.log").read_text()
    assert "resumes after step 5" in log, log
    assert (cluster.folder / WEIGHTS).read_bytes() == weights


def freeze(cluster: Cluster) -> None:
    """Stop a training after its first checkpoint until its time is over, so that it cannot finish before.

    Its time limit, of a minute, is lifted until then: on a busy machine, it takes longer to start.
    """
    job: list[str] = []
    running = ("squeue", "--states=RUNNING", "--noheader", "--Format=JobID:20")
    wait_for(lambda: job.extend(cluster.slurm(*running).split()) or job, 120)
    cluster.slurm("scontrol", "update", f"JobId={job[0]}", "TimeLimit=60")
    wait_for((cluster.folder / STATE).exists, 300, every=0.02)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == cluster.folder and b".py" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGSTOP)
    time.sleep(30)
    cluster.slurm("scontrol", "update", f"JobId={job[0]}", "TimeLimit=1")


def test_a_job_above_its_time_is_explained_and_resumes_with_the_same_numbers(cluster: Cluster) -> None:
    weights = (cluster.folder / WEIGHTS).read_bytes()
    short = ("--set-resources", "pretrain_method:runtime=1 if attempt == 1 else 60")
    freezer = Thread(target=freeze, args=[cluster])
    freezer.start()
    made = cluster.run(WEIGHTS, options=(*AGAIN, *short))
    freezer.join()
    said = made.stdout + made.stderr
    assert made.returncode == 0, said
    assert "SLURM status is: 'TIMEOUT'" in said, said
    assert re.search(r"SIGTERM after step \d+ of 20; the state is saved. A retry goes on from there", said), said
    assert re.search(r"ended from outside after [\d.]+ of 1 minutes: its time limit", said), said
    log = (cluster.folder / "results" / "logs" / "pretrain" / "tmcnet.log").read_text()
    assert re.search(r"resumes after step [1-9]", log), log
    assert (cluster.folder / WEIGHTS).read_bytes() == weights


def test_a_cancelled_job_is_noticed_within_a_minute(cluster: Cluster) -> None:
    log = cluster.folder / "results" / "logs" / "pretrain" / "tmcnet.log"
    log.unlink()
    out = cluster.folder / "out.txt"
    with out.open("w") as file:
        command = cluster.command(WEIGHTS, change=LONG, options=("--retries", "0"))
        run = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=cluster.environment)
        wait_for(log.exists, 300)
        cluster.slurm("scancel", "--state=RUNNING", "--user", str(os.getuid()))
        wait_for(lambda: "CANCELLED" in out.read_text(), 60)
        assert run.wait(timeout=300) != 0
