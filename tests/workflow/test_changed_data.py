"""Changed pixels reach every later stage, no matter how far the workflow ran in between."""

from __future__ import annotations

import json
from pathlib import Path

import rasterio

from tests.workflow.conftest import Project

TARGETS = ("finetune", "maps")
MAPS = {"map_scene", "list_maps"}
TRAINING = {"normalise", "finetune_run"} | MAPS


def flip(path: Path) -> None:
    """Flip a raster vertically: other pixels, but the same range, size and position."""
    with rasterio.open(path, "r+") as dataset:
        dataset.write(dataset.read()[:, ::-1])


def test_changed_rasters_make_results_stale_and_deleted_ones_are_reported(project: Project) -> None:
    def due() -> set[str]:
        return set(project.plan("", *TARGETS)) - set(TARGETS)

    lost = project.results / "scenes" / "birch" / "sar.tif"
    content = lost.read_bytes()
    lost.unlink()
    done = project.call("maps", change="maps: {overlap: 32}")
    assert done.returncode != 0
    assert "birch/sar.tif: does not exist" in done.stdout + done.stderr
    project.run("alignment")
    assert lost.read_bytes() == content
    assert due() == MAPS, "only the failed maps are due"

    flip(project.folder / "alder" / "optical.tif")
    project.run("inventory")
    assert due() >= {"align_scene", "tile_scene", "merge_index"} | TRAINING
    lists = {path: path.read_text() for path in (project.results / "splits").glob("*.txt")}
    project.run("splits")
    assert due() >= TRAINING
    assert {path: path.read_text() for path in (project.results / "splits").glob("*.txt")} == lists != {}


def test_scenes_are_not_mixed_if_settings_change_and_a_scene_is_new(project: Project) -> None:
    change = "tiles: {min_valid: 0.4}"
    with project.sheet("predict"):
        assert project.plan("maps: {overlap: 32}", "maps")["map_scene"] == 3
        assert project.plan("finetune: {weight_decay: 0.5}").items() >= {"finetune_run": 1, "map_scene": 3}.items()
    with project.sheet("train"):
        assert project.plan(change)["tile_scene"] == 3
        project.run("tiles", change=change)
        assert project.plan(change, "tiles") == {}
        summaries = [*(project.results / "tiles" / "index").glob("*.json")]
        assert len({json.loads(path.read_text())["settings"] for path in summaries}) == 1
        other = summaries[0]
        other.write_text(json.dumps(json.loads(other.read_text()) | {"settings": "other"}))
        (project.results / "tiles" / "index.csv").unlink()
        mixed = project.call("tiles", change=change)
        assert mixed.returncode != 0
        assert "was made with other settings than" in mixed.stdout + mixed.stderr
