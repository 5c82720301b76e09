"""Provenance of the data, as shown in the report and recorded in MLflow."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.workflow.conftest import ROOT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "workflow" / "scripts" / "_provenance.py"
    spec = importlib.util.spec_from_file_location("_provenance", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two files under DVC."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("optical.tif", "sar.tif"):
        (folder / name).write_text(name)
    dvc = (sys.executable, "-m", "dvc")
    for command in (("git", "init", "--quiet"), (*dvc, "init", "--quiet"), (*dvc, "add", "--quiet", "data")):
        subprocess.run(command, cwd=tmp_path, check=True)
    return folder


def test_data_without_dvc_are_marked(script: ModuleType, tmp_path: Path) -> None:
    assert script.data_version([]) == {"data_version": "not under DVC"}
    tags = script.provenance(tmp_path, [])
    assert tags["data_version"] == "not under DVC"
    assert tags["manifest_sha256"] == "unknown"


def test_the_version_is_dvc_s_hash_and_changed_files_are_dirty(script: ModuleType, data: Path) -> None:
    record = Path("data.dvc")
    content = yaml.safe_load(record.read_text())["outs"][0]
    clean = {"data_record": "data.dvc", "data_version": content["md5"], "data_dirty": "false"}
    assert script.data_version([record]) == clean
    (data / "sar.tif").touch()
    assert script.data_version([record]) == clean
    (data / "sar.tif").write_text("another image")
    assert script.data_version([record]) == clean | {"data_dirty": "true"}


def test_an_uncommitted_record_is_dirty(script: ModuleType, data: Path) -> None:
    assert script.provenance(data, ["data.dvc"])["git_dirty"] == "true"


def test_a_record_outside_a_dvc_repository_is_still_read(script: ModuleType, tmp_path: Path) -> None:
    record = tmp_path / "data.dvc"
    record.write_text("outs:\n- {md5: abc.dir, hash: md5, path: data}\n")
    version = script.data_version([record])
    assert (version["data_version"], version["data_dirty"]) == ("abc.dir", "unknown")
