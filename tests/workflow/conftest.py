"""Run Snakemake as a user would, each test in a folder of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from tmcnet.config import DemoConfig
from tmcnet.simulate.scene import simulate_scene

ROOT = Path(__file__).parents[2]

Snakemake = Callable[..., subprocess.CompletedProcess[str]]

TINY = """
source: {demo: {scenes: 2, size: 288}}
tiles: {size: 48, stride: 48, min_valid: 0.3}
splits: {block_size: 96, fractions: [5, 100], subsets: 1}
model: {backbone: resnet18, width: 8, aspp_channels: 16, decoder_channels: 16}
pretrain: {steps: 3, batch_size: 4, crop_size: 32, patch_size: 8, patches: 2, warmup_steps: 1, log_every: 1}
finetune:
  sweep: [{methods: [tmcnet], networks: [mssnet], fractions: [5], seeds: [1]}]
  pixelwise: {steps: 10}
  steps: 4
  batch_size: 4
  crop_size: 32
  warmup_steps: 1
  validate_every: 2
evaluate: {bootstrap: 100}
maps: {window: 64, overlap: 16, max_tiles: 2}
compute: {pretrain_threads: 1}
"""
"""Settings that make any recipe run in seconds; they change sizes only."""


@pytest.fixture
def snakemake(tmp_path: Path) -> Snakemake:
    """A function that calls Snakemake in `tmp_path` with the tiny settings laid over a recipe."""
    return caller(tmp_path)


def planned_jobs(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Number of jobs by rule in the plan of a dry run."""
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule != "total"}


def caller(tmp_path: Path) -> Snakemake:
    """A function that calls Snakemake in a folder."""
    (tmp_path / "tiny.yaml").write_text(TINY)

    def call(
        *targets: str,
        recipe: str | None = None,
        change: str = "",
        dry: bool = False,
        keep_going: bool = False,
        clone: Path = ROOT,
        **overrides: str,
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "change.yaml").write_text(change or "{}")
        base = ROOT / "config" / (f"recipes/{recipe}.yaml" if recipe else "config.yaml")
        layers = [str(base), str(tmp_path / "tiny.yaml")]
        command = [
            *(str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(clone / "Snakefile")),
            *("--directory", str(tmp_path), "--cores", "1"),
            *(["--dry-run"] if dry else []),
            *(["--keep-going"] if keep_going else []),
            *("--configfile", *layers, str(tmp_path / "change.yaml")),
            *(("--config", *(f"{k}={v}" for k, v in overrides.items())) if overrides else ()),
            *("--", *targets),
        ]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    return call


SOURCE = "source: {layout: scenes, sheet: scenes.csv}\n"
RUN = "mssnet-corrected__tmcnet__R5__s1"
"""The run of the tiny settings."""


class Project:
    """Two scenes to learn from, run to the report, and two more that are not in the sample sheet yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results, self._call = folder, folder / "results", caller(folder)
        self.demo = DemoConfig(scenes=4, size=288)
        self.scenes = self.demo.scene_names

    def make(self) -> None:
        """Simulate the scenes and run the whole workflow."""
        for scene in self.scenes:
            simulate_scene(self.demo, scene, self.folder / scene)
        self.write_sheet()
        self.run("report", "verify_splits", "seed_layout")

    def call(self, *targets: str, change: str = "", **options: bool | Path) -> subprocess.CompletedProcess[str]:
        """Call Snakemake with a change of the config."""
        return self._call(*targets, change=SOURCE + change, data_root=".", **options)

    def run(self, *targets: str, change: str = "") -> None:
        """Call Snakemake, which must succeed."""
        done = self.call(*targets, change=change)
        assert done.returncode == 0, done.stdout + done.stderr

    def plan(self, change: str = "", *targets: str, clone: Path = ROOT) -> dict[str, int]:
        """Number of jobs by rule that would run."""
        return planned_jobs(self.call(*(targets or ("report",)), change=change, dry=True, clone=clone))

    def write_sheet(self, *roles: str) -> None:
        rows = ["scene,optical,sar,label,role"]
        for scene, role in zip(self.scenes, ("train", "train", *roles), strict=False):
            files = (f"{scene}/optical.tif", f"{scene}/sar.tif", f"{scene}/label.tif" if role == "train" else "")
            rows.append(",".join((scene, *files, role)))
        (self.folder / "scenes.csv").write_text("\n".join(rows) + "\n")

    @contextmanager
    def sheet(self, *roles: str) -> Iterator[None]:
        """With more scenes in the sample sheet."""
        self.write_sheet(*roles)
        yield
        self.write_sheet()

    @contextmanager
    def damaged(self, path: Path, content: bytes | None) -> Iterator[None]:
        """With a file lost (None) or damaged; all that a dry run removes is restored as well."""
        records = [*self.results.glob("inventory/*.json"), *self.results.glob("tiles/index/*"), path]
        records += self.results.glob("scenes/*/alignment.json")
        whole = {file: file.read_bytes() for file in records}
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        yield
        for file, before in whole.items():
            if not file.exists() or file.read_bytes() != before:
                file.write_bytes(before)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of a finished project, made once for all test processes; tests work on copies."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished"
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            folder.mkdir()
            Project(folder).make()
            (folder / "made").touch()
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """A finished project to change."""
    shutil.copytree(finished, tmp_path / "project")
    return Project(tmp_path / "project")
