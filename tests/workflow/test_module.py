"""The workflow as a module of another one, and its conda environment outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.workflow.conftest import ROOT, TINY, planned_jobs

OUTER = """
configfile: "mine.yaml"

module land_cover:
    snakefile: "{root}/Snakefile"
    config: config

use rule * from land_cover as land_cover_*

rule all_of_mine:
    default_target: True
    input: "out/report.html"
"""


def test_another_workflow_uses_it_with_an_overlay(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(OUTER.format(root=ROOT))
    (tmp_path / "mine.yaml").write_text(f"{TINY}preset: demo\nresults_dir: out\nname: mine\n")
    command = [str(Path(sys.executable).parent / "snakemake"), "--cores", "1", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    jobs = planned_jobs(done)
    assert jobs["land_cover_write_report"] == jobs["land_cover_finetune_run"] == jobs["all_of_mine"] == 1
    assert jobs["land_cover_align_scene"] == 2, "as the overlay says"


def test_the_conda_environment_installs_the_package_from_its_repository(tmp_path: Path) -> None:
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text('#!/bin/sh\necho "$@" > called\n')
    pip.chmod(0o755)
    path = f"{pip.parent}{os.pathsep}{os.environ['PATH']}"
    script = ROOT / "workflow" / "envs" / "tmcnet.post-deploy.sh"
    environment = {**os.environ, "PATH": path, "TMCNET_SOURCE": "/clone"}
    subprocess.run(["bash", str(script)], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "called").read_text().split() == ["install", "-c", "/clone/constraints.txt", "/clone"]
