"""The tiny demo on two nodes."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Cluster

pytestmark = pytest.mark.cluster


def test_the_report_is_made_on_two_nodes(cluster: Cluster) -> None:
    done = cluster.run("report")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (cluster.folder / "results" / "report.html").is_file()
