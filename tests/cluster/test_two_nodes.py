"""One pre-training on two nodes of Slurm."""

from __future__ import annotations

import json

import pytest

from tests.cluster.conftest import Cluster

pytestmark = pytest.mark.cluster
TWO = "compute: {nodes: 2, devices: 1}\npretrain: {batch_size: 4}\n"


def test_two_nodes_share_a_pre_training(cluster: Cluster) -> None:
    done = cluster.run("pretrain", change=TWO)
    assert done.returncode == 0, done.stdout + done.stderr
    results = cluster.folder / "results"
    for folder in (results / "pretrain").iterdir():
        assert json.loads((folder / "summary.json").read_text())["batch_size"] == 4
        assert "step" in (results / "logs" / "pretrain" / f"{folder.name}.log").read_text()
