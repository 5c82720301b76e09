"""A Slurm of two emulated nodes on this machine, for tests of the workflow and of trainings on it.

They mostly wait, for Slurm and for processes to start. They run at the same time, each with a Slurm and a copy of
one finished report of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock

from tests.workflow.conftest import ROOT, TINY

SCRIPT = Path(__file__).with_name("slurm.sh")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
PLUGIN = "snakemake_executor_plugin_slurm"
# Losses of a training are compared, by two nodes and after a stop; the settings below give it time to be stopped.
TRAINING = "steps: 20, checkpoint_every: 5"
# The plugin alone would look at its jobs for the first time after the larger number of seconds.
CHECKS = ("--slurm-init-seconds-before-status-checks", "200", "--seconds-between-status-checks", "3")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which `sbatch`, `srun` and `squeue` reach the cluster; its nodes are `node1` and `node2`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing or find_spec(PLUGIN) is None:
        pytest.skip(f"no Slurm here ({', '.join(missing) or PLUGIN} is missing); `make test-cluster` installs it")
    folder = tmp_path_factory.mktemp("slurm")
    environment = os.environ | {"PATH": path}
    subprocess.run([SCRIPT, "start", folder, "2"], check=True, env=environment)
    try:
        yield environment | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder}/bin:{path}"}
    finally:
        subprocess.run([SCRIPT, "stop", folder], env=environment)


class Cluster:
    """Calls Snakemake in a folder with the tiny demo, its jobs on Slurm.

    Args:
        environment: That of the fixture `slurm`.
        folder: Working directory.
    """

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment, self.folder = environment, folder
        # Two nodes equal one process up to rounding, coarse in bfloat16. Two scenes take the CPUs of both nodes.
        exact = TINY.replace("compute: {", "compute: {precision: 32-true, raster_threads: 2, ")
        (folder / "tiny.yaml").write_text(exact.replace("pretrain: {steps: 3", f"pretrain: {{{TRAINING}"))

    def command(self, *targets: str, change: str = "", options: tuple[str, ...] = ()) -> list[str]:
        """The command line, without the number of cores: that of the profile must do."""
        (self.folder / "change.yaml").write_text(change or "{}")
        layers = [ROOT / "config" / "config.yaml", self.folder / "tiny.yaml", self.folder / "change.yaml"]
        return [
            *(str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile")),
            *("--profile", str(ROOT / "profiles" / "slurm"), "--directory", str(self.folder)),
            *("--latency-wait", "10", *CHECKS, *options),
            *("--configfile", *map(str, layers), "--", *targets),
        ]

    def run(self, *targets: str, change: str = "", options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        command = self.command(*targets, change=change, options=options)
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=self.environment)

    def slurm(self, *command: str) -> str:
        """Output of a command of Slurm."""
        return subprocess.run(command, capture_output=True, text=True, check=True, env=self.environment).stdout

    def jobs(self) -> list[list[str]]:
        """Comment, node and GPUs of all jobs so far; the comment names the rule."""
        table = self.slurm("squeue", "--states=all", "-h", "--Format=Comment:150,NodeList:20,tres-per-job:40")
        return [[row[:150].strip(), row[150:170].strip(), row[170:].strip()] for row in table.splitlines()]


@pytest.fixture(scope="session")
def finished(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of a report, made once for all test processes; `jobs.json` has its jobs on Slurm."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "report"
    with FileLock(f"{folder}.lock"):
        if not (folder / "jobs.json").exists():
            folder.mkdir()
            cluster = Cluster(slurm, folder)
            made = cluster.run("report", options=("--resources", "gpu=2"))  # a GPU for each training
            assert made.returncode == 0, made.stdout + made.stderr
            (folder / "jobs.json").write_text(json.dumps(cluster.jobs()))
    return folder


@pytest.fixture
def cluster(slurm: dict[str, str], finished: Path, tmp_path: Path) -> Cluster:
    """Calls Snakemake in a copy of the finished report."""
    shutil.copytree(finished, tmp_path / "report")
    return Cluster(slurm, tmp_path / "report")
