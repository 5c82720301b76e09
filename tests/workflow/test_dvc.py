"""Raw data and results under DVC: versions are restored byte for byte, and Snakemake repeats only what is stale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow import lookalikes
from tests.workflow.conftest import ROOT, TINY

BIN = Path(sys.executable).parent
BIG = "data/train_RGB/t000.tif"
"""A raw file larger than those that Snakemake compares by content by default."""


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the settings of the user and the common cache of DVC."""
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "tester")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "dvc-settings"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc-site"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new repository with the files of this one, tiny settings, and 30 tiles as raw data."""
    folder = tmp_path / "first"
    for name in run("git ls-files --cached --others --exclude-standard", ROOT).splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    recipe = (ROOT / "config" / "recipes" / "seed-layout.yaml").read_text()
    path = folder / "config" / "config.yaml"
    config = merged(*(yaml.safe_load(text) for text in (path.read_text(), recipe, TINY)))
    path.write_text(yaml.safe_dump(config | {"results_dir": "results", "data_root": "data"}))
    lookalikes.seed_layout(folder / "data")
    with (folder / BIG).open("ab") as file:
        file.write(bytes(2_000_000))
    run("git init --quiet", folder)
    run("git add --all", folder)
    record(folder, "first version")
    return folder


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merge layers of a config; later ones take precedence."""
    whole: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = whole.get(key)
            whole[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return whole


def run(command: str, folder: Path) -> str:
    """Output of a command, which must succeed."""
    done = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def record(folder: Path, message: str) -> None:
    """Commit the data on disk as a version."""
    run("dvc add --quiet data", folder)
    run("git add data.dvc", folder)
    subprocess.run(["git", "commit", "--quiet", "--message", message], cwd=folder, check=True)


def splits(folder: Path) -> dict[str, bytes]:
    """Make the splits from the data on disk; manifest and lists by name."""
    run("snakemake --cores 1 splits", folder)
    return {path.name: path.read_bytes() for path in (folder / "results" / "splits").iterdir()}


def test_a_restored_version_of_the_data_gives_the_same_splits(project: Path, tmp_path: Path) -> None:
    first = splits(project)
    run("dvc push --quiet", project)
    run("git clone --quiet first second", tmp_path)
    second = tmp_path / "second"
    run("dvc pull --quiet data.dvc", second)
    assert splits(second) == first

    for path in second.glob("data/train_*.txt"):
        path.write_text(path.read_text().replace("t005.tif\n", ""))
    record(second, "one tile less")
    changed = splits(second)
    assert changed.keys() == first.keys()
    assert changed["manifest.json"] != first["manifest.json"]

    run("git checkout --quiet HEAD~1", second)
    run("dvc checkout --quiet data.dvc", second)
    assert splits(second) == first


def test_data_are_pushed_to_object_storage_and_pulled(project: Path, tmp_path: Path, bucket: tuple[str, str]) -> None:
    pytest.importorskip("dvc_s3")
    place, url = bucket
    run(f"dvc remote modify store url {place}/tmcnet", project)
    run(f"dvc remote modify store endpointurl {url.rpartition('/')[0]}", project)
    run("git add --all", project)
    run("git commit --quiet --message remote", project)
    run("dvc push --quiet data.dvc", project)
    run("git clone --quiet first second", tmp_path)
    second = tmp_path / "second"
    run("dvc pull --quiet data.dvc", second)
    files = [path.relative_to(project) for path in raw_files(project)]
    assert len(files) > 30
    assert all((second / path).read_bytes() == (project / path).read_bytes() for path in files)


def test_new_times_of_raw_files_rerun_nothing(project: Path) -> None:
    run("snakemake --cores 1 finetune", project)
    shutil.rmtree(project / "data")
    run("dvc checkout --quiet data.dvc", project)
    for path in raw_files(project):
        path.touch()
    assert "Nothing to be done" in run("snakemake --dry-run --cores 1 finetune", project)
    with (project / BIG).open("ab") as file:
        file.write(b"0")
    assert "finetune_run" in run("snakemake --dry-run --cores 1 finetune", project)


def raw_files(project: Path) -> Iterator[Path]:
    return (path for path in (project / "data").rglob("*") if path.is_file())


@pytest.mark.slow
def test_results_are_versioned(project: Path, tmp_path: Path) -> None:
    run("dvc repro", project)
    assert "up to date" in run("dvc status", project)
    run("git add dvc.lock", project)
    run("git commit --quiet --message results", project)
    run("dvc push --quiet", project)
    version = yaml.safe_load((project / "data.dvc").read_text())["outs"][0]["md5"]
    assert version in (project / "results" / "report.html").read_text()

    run("git clone --quiet first second", tmp_path)
    second = tmp_path / "second"
    run("dvc pull --quiet", second)
    weights = "finetune/mssnet-corrected__tmcnet__R5__s1/weights.safetensors"
    for name in ("scores.json", "metrics.json", weights, "report.html"):
        assert (second / "results" / name).read_bytes() == (project / "results" / name).read_bytes()

    path = second / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {"evaluate": {"bootstrap": 150}}))
    changes = [line.split()[1:] for line in run("dvc params diff", second).splitlines()]
    assert ["evaluate.bootstrap", "100", "150"] in changes
    scores = second / "results" / "scores.json"
    scores.write_text(scores.read_text().replace('"miou"', '"changed"'))
    found = [line.split() for line in run("dvc metrics diff", second).splitlines()]
    assert [words[1] for words in found if words[0].endswith("scores.json")] == [
        f"mssnet-corrected.tmcnet.R5.{name}" for name in ("changed", "miou")
    ]
