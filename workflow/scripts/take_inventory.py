"""Merge what was found in the scenes, and write the inventory."""

from pathlib import Path

from _job import config, logged

from tmcnet.config import SensorsConfig
from tmcnet.raster.inventory.inventory import take_inventory

with logged(snakemake):
    take_inventory(
        [Path(path) for path in snakemake.input.parts],
        SensorsConfig.model_validate(snakemake.params.sensors),
        config(snakemake).labels,
        Path(snakemake.output.json),
        Path(snakemake.output.csv),
    )
