"""Wrong input stops before any long work, with one message that names file, field and remedy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.workflow import lookalikes
from tests.workflow.conftest import ROOT, Snakemake
from tmcnet.config import load_overlays
from tmcnet.errors import InputError
from tmcnet.raster.inventory.inventory import inspect_scenes, take_inventory
from tmcnet.raster.inventory.sources import find_entries


def rewrite(path: Path, array: np.ndarray | None = None, **profile: object) -> None:
    with rasterio.open(path) as dataset:
        old, pixels = dataset.profile, dataset.read()
    pixels = pixels if array is None else array
    with rasterio.open(path, "w", **{**old, "count": len(pixels), **profile}) as dataset:
        dataset.write(pixels)


def no_crs(raw: Path) -> None:
    rewrite(raw / "optical" / "NH49E001.tif", crs=None)


def too_few_bands(raw: Path) -> None:
    with rasterio.open(raw / "optical" / "NH49E002.tif") as dataset:
        pixels = dataset.read()[:3]
    rewrite(raw / "optical" / "NH49E002.tif", pixels)


def unknown_code(raw: Path) -> None:
    with rasterio.open(raw / "lbl" / "NH49E003.tif") as dataset:
        pixels = dataset.read()
    pixels[0, :4, :4] = 99
    rewrite(raw / "lbl" / "NH49E003.tif", pixels)


def truncated(raw: Path) -> None:
    path = raw / "sar" / "NH49E004.tif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def missing_pair(raw: Path) -> None:
    (raw / "sar" / "NH49E005.tif").unlink()


def extra_file(raw: Path) -> None:
    shutil.copy(raw / "sar" / "NH49E005.tif", raw / "sar" / "stranger.tif")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (no_crs, ["NH49E001.tif", "CRS"]),
        (too_few_bands, ["NH49E002.tif", "3", "sensors.optical.bands"]),
        (unknown_code, ["NH49E003.tif", "99", "labels"]),
        (truncated, ["NH49E004.tif"]),
        (missing_pair, ["NH49E005", "source.sar"]),
        (extra_file, ["stranger", "source.optical"]),
    ],
)
def test_a_damaged_scene_is_named(tmp_path: Path, damage, words: list[str]) -> None:
    raw = lookalikes.whu_opt_sar(tmp_path / "raw")
    damage(raw)
    config = load_overlays([ROOT / "config" / "recipes" / "whu-opt-sar.yaml"], {"data_root": str(raw)})
    part = tmp_path / "inventory" / "all.json"
    with pytest.raises(InputError) as caught:
        inspect_scenes(config.source, config.sensors, config.labels, raw, None, part)
        take_inventory([part], config.sensors, config.labels, tmp_path / "i.json", tmp_path / "i.csv")
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(("damage", "words"), [(unknown_code, ["NH49E003.tif", "99"]), (missing_pair, ["NH49E005"])])
def test_a_damaged_scene_stops_the_workflow(snakemake: Snakemake, tmp_path: Path, damage, words: list[str]) -> None:
    raw = lookalikes.whu_opt_sar(tmp_path / "raw")
    damage(raw)
    done = snakemake("report", recipe="whu-opt-sar", data_root=str(raw), results_dir="out")
    assert done.returncode != 0
    message = done.stdout + done.stderr
    assert all(word in message for word in words), message
    assert "Traceback" not in message
    assert not (tmp_path / "out" / "scenes").exists()


def test_an_unknown_config_key_is_named(snakemake: Snakemake, tmp_path: Path) -> None:
    done = snakemake("report", tilez="3")
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert "config key `tilez`" in message
    assert "Did you mean `tiles`?" in message
    assert "Traceback" not in message


def test_a_split_without_tiles_is_an_error(snakemake: Snakemake, tmp_path: Path) -> None:
    raw = lookalikes.whu_opt_sar(tmp_path / "raw", scenes=2)
    done = snakemake("report", recipe="whu-opt-sar", data_root=str(raw), results_dir="out")
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert "splits" in message
    assert "Traceback" not in message
    assert not (tmp_path / "out" / "pretrain").exists()


def test_self_training_without_unlabelled_tiles_stops_before_its_teacher_is_trained(snakemake: Snakemake) -> None:
    done = snakemake(
        "results/splits/manifest.json",
        change="finetune: {sweep: [{methods: [self-training], networks: [pixel_mlp], fractions: [100], seeds: [1]}]}",
    )
    assert done.returncode != 0
    assert "trainR100 has all tiles of the training part" in done.stdout + done.stderr
    assert "Take `self-training` out of `finetune.sweep`" in done.stdout + done.stderr


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    recipe = ROOT / "config" / "recipes" / "whu-opt-sar.yaml"
    config = load_overlays([recipe], {"data_root": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match="nowhere"):
        find_entries(config.source, Path(config.data_root), config.sensors)
