"""Every rule says what a scheduler must know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, RUN, Snakemake
from tmcnet.config import ComputeConfig

RULES = {
    f"{file.name}: {name}": body
    for file in sorted((Path(__file__).parents[2] / "workflow" / "rules").glob("*.smk"))
    for name, body in re.findall(
        r"^ *(?:rule|checkpoint) (\w+):\n(.*?)(?=^ *rule |\Z)", file.read_text(), re.M | re.S
    )
    if "script:" in body or "shell:" in body
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_states_memory_time_and_threads(rule: str) -> None:
    body = RULES[rule]
    assert re.search(r"^ +threads: ", body, re.M), f"{rule} states no threads"
    stated = body.partition("resources:")[2].partition("params:")[0]
    for name in ("mem_mb", "runtime"):
        grows = "**SMALL" in stated or re.search(rf"\b{name}=(growing|(map_|training_)?memory|SMALL)\b", stated)
        assert grows, f"{rule} states no {name} that grows with the attempt"


def test_no_rule_depends_on_the_cores_of_the_submitting_host() -> None:
    assert not [rule for rule, body in RULES.items() if "workflow.cores" in body]


def test_jobs_request_memory_in_megabytes() -> None:
    compute = ComputeConfig(cache_gib=1.5, job_gib=2.5)
    assert compute.memory_mb(cached=True) == 4295  # 4 GiB in MB
    assert compute.memory_mb(cached=False) == 2684
    assert compute.numerics() == {"accelerator": "auto", "precision": "auto"}


def test_maps_ask_memory_for_the_windows_that_the_network_needs(snakemake: Snakemake, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        f'include: "{ROOT / "Snakefile"}"\nprint("windows of", map_window("{RUN}"))\n'
    )
    wide = "model: {dilations: [6, 12, 18]}\nmaps: {overlap: null}"
    assert "windows of 1504" in snakemake("inventory", dry=True, change=wide, clone=tmp_path).stdout
