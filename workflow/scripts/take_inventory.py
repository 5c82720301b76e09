"""Check every raster of the source and write the inventory."""

from pathlib import Path

from _job import logged

from tmcnet.config import LabelsConfig, SensorsConfig, SourceConfig
from tmcnet.raster.inventory.inventory import take_inventory

with logged(snakemake.log[0]):
    take_inventory(
        SourceConfig.model_validate(snakemake.params.source),
        SensorsConfig.model_validate(snakemake.params.sensors),
        LabelsConfig.model_validate(snakemake.params.labels),
        Path(snakemake.params.data_root),
        Path(snakemake.output.json),
        Path(snakemake.output.csv),
    )
