"""Run Snakemake as a user would, each test in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


def planned_rules(snakemake: Snakemake, change: str, *targets: str) -> set[str]:
    """The rules that would run for targets after a change of the config."""
    return set(planned_jobs(snakemake(*targets, change=change, dry=True))) - set(targets)


def caller(tmp_path: Path) -> Snakemake:
    """A function that calls Snakemake in a folder."""
    (tmp_path / "tiny.yaml").write_text(TINY)

    def call(
        *targets: str,
        recipe: str | None = None,
        change: str = "",
        dry: bool = False,
        keep_going: bool = False,
        **overrides: str,
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "change.yaml").write_text(change or "{}")
        recipes = [str(ROOT / "config" / "recipes" / f"{recipe}.yaml")] if recipe else []
        layers = [str(ROOT / "config" / "config.yaml"), *recipes, str(tmp_path / "tiny.yaml")]
        command = [
            *(str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile")),
            *("--directory", str(tmp_path), "--cores", "1"),
            *(["--dry-run"] if dry else []),
            *(["--keep-going"] if keep_going else []),
            *("--configfile", *layers, str(tmp_path / "change.yaml")),
            *(("--config", *(f"{k}={v}" for k, v in overrides.items())) if overrides else ()),
            *("--", *targets),
        ]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    return call
