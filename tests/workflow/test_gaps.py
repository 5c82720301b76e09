"""A run that fails takes no other down, and the report shows the gap."""

import json
import shutil

from tests.workflow.conftest import Project

SWEEP = """
finetune:
  sweep: [{methods: [random, broken], networks: [mssnet], fractions: [5], seeds: [1]}]
pretrain: {methods: {}, weights: {broken: broken.safetensors}}
tracking: {uri: "sqlite:///tracking.db"}
"""
FAILED, DONE = "mssnet-corrected__broken__R5__s1", "mssnet-corrected__random__R5__s1"


def test_a_failed_run_is_a_gap_in_the_report(project: Project) -> None:
    (project.folder / "broken.safetensors").write_bytes(b"no weights")
    report = project.results / "report.html"
    done = project.call("report", change=SWEEP, keep_going=True)
    assert done.returncode != 0
    assert "broken.safetensors" in done.stdout + done.stderr
    page = report.read_text()
    assert f"1 run without scores: {FAILED} (broken.safetensors: " in page
    assert DONE in json.loads((project.results / "evaluate" / DONE / "metrics.json").read_text())["run"]["name"]
    assert json.loads((project.results / "metrics.json").read_text())["missing"] == [FAILED]

    for recorded in (True, False):  # of an earlier success
        if not recorded:
            shutil.rmtree(project.folder / ".snakemake" / "metadata")
        for target in ("report", "evaluate", "results/report.html", "results/metrics.csv"):
            plan = project.plan(SWEEP, target)
            assert {"finetune_run", "summarise"} <= set(plan), f"{target} never counts as finished"

    corrected = SWEEP.replace("[random, broken]", "[random]")
    plan = project.plan(corrected)
    assert {"summarise", "write_report"} <= set(plan), "a report with gaps never counts as finished"
    assert "finetune_run" not in plan
    project.run("report", change=corrected)
    assert project.plan(corrected) == {}, "the note of a failure counts once"
