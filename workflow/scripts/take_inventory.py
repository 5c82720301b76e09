"""Merge the inventories of the scenes, and compare the scenes."""

from pathlib import Path

from _job import config, logged

from tmcnet.config import SensorsConfig
from tmcnet.raster.inventory.inventory import take_inventory

with logged(snakemake):
    take_inventory(
        [Path(path) for path in snakemake.input.inventories],
        SensorsConfig.model_validate(snakemake.params.sensors),
        config(snakemake).labels,
        Path(snakemake.output.json),
        Path(snakemake.output.csv),
    )
    if gate := snakemake.output.get("gate"):
        Path(gate).write_text("".join(f"{Path(path).stem}\n" for path in snakemake.input.inventories))
