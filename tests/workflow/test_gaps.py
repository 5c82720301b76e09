"""A run that fails takes no other down, and the report shows the gap."""

import json

import pytest

SWEEP = """
finetune:
  sweep: [{methods: [random, broken], networks: [mssnet], fractions: [5], seeds: [1]}]
pretrain: {methods: {}, weights: {broken: broken.safetensors}}
tracking: {uri: "sqlite:///tracking.db"}
"""
FAILED, DONE = "mssnet-corrected__broken__R5__s1", "mssnet-corrected__random__R5__s1"


@pytest.mark.xdist_group("demo")
def test_a_failed_run_is_a_gap_in_the_report(snakemake, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    report = tmp_path / "results" / "report.html"
    done = snakemake("report", change=SWEEP, keep_going=True)
    assert done.returncode != 0
    assert "broken.safetensors" in done.stdout + done.stderr
    page = report.read_text()
    assert f"1 run without scores: {FAILED} (broken.safetensors: " in page
    assert DONE in json.loads((tmp_path / "results" / "evaluate" / DONE / "metrics.json").read_text())["run"]["name"]
    assert json.loads((tmp_path / "results" / "metrics.json").read_text())["missing"] == [FAILED]

    corrected = SWEEP.replace("[random, broken]", "[random]")
    dry = snakemake("report", change=corrected, dry=True)
    for rule in ("summarise", "write_report"):
        assert rule in dry.stdout, "a report with gaps never counts as finished"
    assert "finetune_run" not in dry.stdout
