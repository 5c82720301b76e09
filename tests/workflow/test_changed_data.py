"""Changed pixels are seen by every later stage, however far the workflow was run in between."""

from __future__ import annotations

from pathlib import Path

import rasterio

from tests.workflow.conftest import Snakemake
from tests.workflow.test_demo import planned

CHANGE = "finetune: {sweep: [{methods: [random], networks: [mssnet], fractions: [5], seeds: [1]}]}\n"
TARGETS = ("finetune", "maps")
TRAINING = {"normalise", "finetune_run", "map_scenes"}


def flip(path: Path) -> None:
    """Turn a raster upside down: other pixels, but the same range, size and place."""
    with rasterio.open(path, "r+") as dataset:
        dataset.write(dataset.read()[:, ::-1])


def test_nothing_stale_is_taken_for_fresh_and_nothing_lost_for_there(snakemake: Snakemake, tmp_path: Path) -> None:
    def run(*targets: str) -> None:
        done = snakemake(*targets, change=CHANGE)
        assert done.returncode == 0, done.stdout + done.stderr

    def due() -> set[str]:
        return planned(snakemake, CHANGE, *TARGETS) - set(TARGETS)

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
    assert due() == {"map_scenes"}, "the maps that failed, and nothing that was finished"

    flip(tmp_path / "data" / "demo" / "alder" / "optical.tif")
    run("inventory")
    assert due() >= {"align_scene", "make_tiles"} | TRAINING
    lists = {path: path.read_text() for path in (results / "splits").glob("*.txt")}
    run("splits")
    assert due() >= TRAINING
    assert {path: path.read_text() for path in (results / "splits").glob("*.txt")} == lists != {}
