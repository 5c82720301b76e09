"""Other label fractions, points and draws leave the runs alone whose own lists stay as they are."""

from __future__ import annotations

from pathlib import Path

from tests.workflow.conftest import RUN, Project

RECORDS = {"track": 1, "write_report": 1, "report": 1}
REDRAWN = {"make_splits": 1, "summarise": 1} | RECORDS
ADDED = {"finetune_run": 1, "evaluate_run": 1, "write_model": 1, "map_scene": 2, "list_maps": 1}
RETRAINED = {"make_splits", "normalise", "pretrain_method", "finetune_run", "evaluate_run"}
MORE = "splits: {fractions: [5, 40, 100], subsets: 2, points: [3]}\n"
SWEEP = "finetune: {sweep: [{methods: [tmcnet], networks: [mssnet], fractions: [5, 40], seeds: [1]}]}\n"
SEEDS = "finetune: {sweep: [{methods: [tmcnet], networks: [mssnet], fractions: [5], seeds: [1, 2]}]}\n"


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(pattern)}


def test_only_new_runs_are_trained(project: Project) -> None:
    assert project.plan(MORE) == REDRAWN
    assert project.plan(MORE + SWEEP) == REDRAWN | ADDED
    assert project.plan(MORE + SWEEP, "finetune") == {"make_splits": 1, "finetune_run": 1, "finetune": 1}
    assert project.plan(MORE + SEEDS) == REDRAWN | {"finetune_run": 1, "evaluate_run": 1}
    both = project.plan(MORE + SWEEP.replace("{sweep", "{weight_decay: 0.5, sweep"))
    assert both == REDRAWN | ADDED | {"finetune_run": 2, "evaluate_run": 2}

    splits, weights = project.results / "splits", project.results / "finetune" / RUN / "weights.safetensors"
    lists, trained = contents(splits, "t*_*.txt") | contents(splits, "val_*.txt"), weights.stat().st_mtime_ns
    project.run("report", "verify_splits", change=MORE + SWEEP)
    assert weights.stat().st_mtime_ns == trained
    assert contents(splits, "*.txt").items() > lists.items()
    assert project.plan(MORE + SWEEP) == {}
    assert project.plan(MORE + SWEEP, "verify_splits") == {}
    assert project.plan() == REDRAWN, "without the added fraction"

    for path in splits.iterdir():
        path.unlink()  # as in a job that was killed
    assert project.plan() == REDRAWN
    project.run("report", "verify_splits")
    assert contents(splits, "*.txt") == lists
    assert project.plan() == {}
    assert weights.stat().st_mtime_ns == trained


def test_other_changes_beside_more_labels_are_seen(project: Project) -> None:
    for change in ("fractions: [5, 40, 100], seed: 3", "fractions: [5], block_size: 48"):
        assert set(project.plan(f"splits: {{{change}}}", "finetune", "evaluate")) >= RETRAINED, change
    with project.sheet("train"):
        assert set(project.plan(MORE)) >= RETRAINED | {"merge_index"}
        project.run("tiles")
        assert set(project.plan(MORE)) >= RETRAINED
