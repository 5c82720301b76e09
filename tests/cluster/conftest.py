"""A Slurm of two emulated nodes on this machine, for tests of the workflow and of trainings on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, TINY

SCRIPT = Path(__file__).with_name("slurm.sh")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
PLUGIN = "snakemake_executor_plugin_slurm"


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
        # Two nodes equal one process up to rounding, which is coarse in bfloat16.
        exact = TINY.replace("scenes: 3", "scenes: 2").replace("compute: {", "compute: {precision: 32-true, ")
        (folder / "tiny.yaml").write_text(exact)

    def command(self, *targets: str, change: str = "", options: tuple[str, ...] = ()) -> list[str]:
        """The command line, without the number of cores: that of the profile must do."""
        (self.folder / "change.yaml").write_text(change or "{}")
        layers = [ROOT / "config" / "config.yaml", self.folder / "tiny.yaml", self.folder / "change.yaml"]
        return [
            *(str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile")),
            *("--profile", str(ROOT / "profiles" / "slurm"), "--directory", str(self.folder)),
            *("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10", *options),
            *("--configfile", *map(str, layers), "--", *targets),
        ]

    def run(self, *targets: str, change: str = "", options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        command = self.command(*targets, change=change, options=options)
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=self.environment)
