"""The workflow as a module of another one, its container, and its conda environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

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


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with the files that the container copies from the repository."""
    folder = tmp_path / "image"
    folder.mkdir()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            *names, target = line.split()[1:]
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, folder / target)
    return folder


def test_another_workflow_uses_what_the_container_holds_with_an_overlay(image: Path, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(OUTER.format(root=image))
    (tmp_path / "mine.yaml").write_text(f"{TINY}preset: demo\nresults_dir: out\nname: mine\n")
    command = [str(Path(sys.executable).parent / "snakemake"), "--cores", "1", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(image)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    jobs = planned_jobs(done)
    assert jobs["land_cover_write_report"] == jobs["land_cover_finetune_run"] == jobs["all_of_mine"] == 1
    assert jobs["land_cover_align_scene"] == 2, "as the overlay says"


def test_container_and_conda_have_the_same_python_and_the_tools_of_gdal(image: Path) -> None:
    text = (ROOT / "Dockerfile").read_text()
    conda = yaml.safe_load((ROOT / "workflow" / "envs" / "tmcnet.yaml").read_text())["dependencies"]
    (python,) = (name.removeprefix("python=") for name in conda if name.startswith("python="))
    assert f"FROM python:{python}-slim" in text
    assert "gdal" in conda and "gdal-bin" in text
    assert "pip install --no-cache-dir -c constraints.txt -e ." in text
    assert (image / tomllib.loads((image / "pyproject.toml").read_text())["project"]["readme"]).is_file()


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
