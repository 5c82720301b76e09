import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.report.results_folder import make_results
from tmcnet.config import Config
from tmcnet.report import build

PROVENANCE = {"version": "0.1.0", "git_commit": "<b>abc</b>", "git_dirty": "false"}
SMALL = {
    "sweep": [
        {"methods": ["random", "tmcnet"], "networks": ["mssnet"], "fractions": [5], "seeds": [1]},
        {"networks": ["sar_only"], "fractions": [5], "seeds": [1]},
    ],
    "crop_size": 48,
}


@dataclass(frozen=True)
class Built:
    """A results folder, its config and its page."""

    root: Path
    config: Config
    page: str


def build_page(root: Path, config: Config) -> str:
    build(root, config, root / "report.html", PROVENANCE)
    return (root / "report.html").read_text()


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    root = tmp_path_factory.mktemp("full") / "results"
    config = make_results(root)
    return Built(root, config, build_page(root, config))


@pytest.fixture(scope="session")
def _small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small") / "results"
    return root, make_results(root, finetune=SMALL)


@pytest.fixture
def small(_small, tmp_path):
    """A copy of a smaller results folder that a test may change, and its config."""
    root, config = _small
    shutil.copytree(root, tmp_path / "results")
    return tmp_path / "results", config
