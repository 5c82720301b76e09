"""Changed pixels reach every later stage, no matter how far the workflow ran in between."""

from __future__ import annotations

from pathlib import Path

import rasterio

from tests.workflow.conftest import Snakemake, planned_rules

CHANGE = "finetune: {sweep: [{methods: [random], networks: [mssnet], fractions: [5], seeds: [1]}]}\n"
TARGETS = ("finetune", "maps")
MAPS = {"map_scene", "style_map", "list_maps"}
TRAINING = {"normalise", "finetune_run"} | MAPS


def flip(path: Path) -> None:
    """Flip a raster vertically: other pixels, but the same range, size and position."""
    with rasterio.open(path, "r+") as dataset:
        dataset.write(dataset.read()[:, ::-1])


def test_changed_rasters_make_results_stale_and_deleted_ones_are_reported(
    snakemake: Snakemake, tmp_path: Path
) -> None:
    def run(*targets: str) -> None:
        done = snakemake(*targets, change=CHANGE)
        assert done.returncode == 0, done.stdout + done.stderr

    def due() -> set[str]:
        return planned_rules(snakemake, CHANGE, *TARGETS)

    run(*TARGETS)
    results = tmp_path / "results"
    lost = results / "scenes" / "birch" / "sar.tif"
    content = lost.read_bytes()
    lost.unlink()
    done = snakemake("maps", change=f"{CHANGE}maps: {{overlap: 32}}")
    assert done.returncode != 0
    assert "birch/sar.tif: does not exist" in done.stdout + done.stderr
    run("alignment")
    assert lost.read_bytes() == content
    assert due() == MAPS, "only the failed maps are due"

    flip(tmp_path / "data" / "demo" / "alder" / "optical.tif")
    run("inventory")
    assert due() >= {"align_scene", "tile_scene", "make_tiles"} | TRAINING
    lists = {path: path.read_text() for path in (results / "splits").glob("*.txt")}
    run("splits")
    assert due() >= TRAINING
    assert {path: path.read_text() for path in (results / "splits").glob("*.txt")} == lists != {}
