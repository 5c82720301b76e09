"""Scores and maps of networks that are no more."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from tmcnet.config import Run


def forget_outdated(results: Path, runs: Iterable[Run], folds: Collection[str] = ("",)) -> list[Path]:
    """Remove scores and maps that are older than the network of their run, or whose network is gone.

    A training that is repeated and fails leaves no weights, but the scores of the former weights are still there;
    beside the scores of newer runs they would be taken for results of the same config.

    Args:
        results: The results folder.
        runs: The runs of the sweep.
        folds: Folders of the folds below the results; scores of all folds together need the networks of all.

    Returns:
        The files removed.
    """
    outdated = []
    for run in runs:
        networks = [results / fold / "finetune" / run.name / "weights.safetensors" for fold in folds]
        made = max(path.stat().st_mtime if path.exists() else float("inf") for path in networks)
        maps = results / "maps"
        found = [
            *(results / "evaluate" / run.name).glob("*"),
            *maps.glob(f"{run.name}.csv"),
            *maps.glob(f"*/{run.name}.tif"),
            *maps.glob(f"*/{run.name}_confidence.tif"),
        ]
        outdated += [path for path in found if path.stat().st_mtime < made]
    for path in outdated:
        path.unlink()
    return outdated
