"""A folder of tiny tiles whose classes can be learnt in a few steps."""

import csv
import json

import numpy as np

from tests.splits.tile_indexes import write_hashes
from tmcnet.classes import ClassTable
from tmcnet.config import ComputeConfig, ContextConfig, FinetuneSettings, ModelConfig, SensorConfig, SensorsConfig
from tmcnet.raster.io.writer import write_raster

SIZE = 40  # no multiple of the output stride


def build_tiles(root, tiles=12, size=SIZE):
    """Tiles whose left and right parts differ in brightness in both sensors; a void row, and no data in a corner."""
    random = np.random.default_rng(0)
    store, splits = root / "tiles", root / "splits"
    for folder in (store / "optical", store / "sar", store / "label", splits):
        folder.mkdir(parents=True)
    names = [f"s{i // 4}_r{i % 4}_c0" for i in range(tiles)]
    for name in names:
        border = int(random.integers(size // 4, 3 * size // 4))
        label = np.zeros((size, size), np.uint8)
        label[:, border:] = 1
        optical = label * 80 + 60 + random.normal(0, 8, (3, size, size))
        sar = label * 8.0 - 15 + random.normal(0, 1, (1, size, size))
        sar[:, :4, :4] = np.nan
        label[0] = 255
        write_raster(store / "optical" / f"{name}.tif", optical.astype(np.uint8), None)
        write_raster(store / "sar" / f"{name}.tif", sar.astype(np.float32), None, nodata=np.nan)
        write_raster(store / "label" / f"{name}.tif", label, None, nodata=255)
    ClassTable.of([("left", "#0000ff"), ("right", "#00ff00")]).write(store / "classes.csv")
    with (store / "index.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["tile", "scene", "row", "col", "height", "width"])
        rows.writerows([name, name.split("_")[0], i % 4 * size, 0, size, size] for i, name in enumerate(names))
    lists = {"train": names[:4], "trainR50": names[:2], "trainR100": names[:4], "val": names[4:8], "test": names[8:]}
    for part, chosen in lists.items():
        (splits / f"{part}_RGB.txt").write_text("".join(f"{name}\n" for name in chosen))
    write_hashes(splits)
    bands = {"optical": [(50, 150)] * 3, "sar": [(-17, -5)]}
    scaling = {
        sensor: [{"band": f"b{i}", "low": lo, "high": hi, "mean": 0, "std": 1} for i, (lo, hi) in enumerate(ranges)]
        for sensor, ranges in bands.items()
    }
    (root / "normalisation.json").write_text(json.dumps({**scaling, "clip": 1.5, "n_tiles": 4}))
    return root


def configs(**changes):
    """Fine-tuning, model, sensors and compute configs of a size for tests."""
    values = {"steps": 6, "batch_size": 4, "crop_size": 32, "warmup_steps": 2, "validate_every": 3, "keep": "best"}
    pixelwise = dict(changes.pop("pixelwise", {}))
    config = FinetuneSettings(**{**values, "pixelwise": {"steps": 10, **pixelwise}, **changes})
    context = ContextConfig(windows=[3, 7], relative_window=11)
    model = ModelConfig(backbone="resnet18", width=8, aspp_channels=16, decoder_channels=16, context=context)
    sensors = SensorsConfig(
        optical=SensorConfig(bands=["b0", "b1", "b2"], kind="reflectance"),
        sar=SensorConfig(bands=["b0"], kind="backscatter", scale="db"),
    )
    return config, model, sensors, ComputeConfig(accelerator="cpu", precision="32-true")
