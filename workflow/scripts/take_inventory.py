"""Merge the inventories of the scenes, and compare the scenes."""

from pathlib import Path

from _job import config, logged, show

from tmcnet.config import SensorsConfig
from tmcnet.raster.inventory.cautions import cautions
from tmcnet.raster.inventory.inventory import take_inventory
from tmcnet.readers import read_record, read_rows

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
    noted = [row for row in read_rows(Path(snakemake.output.csv), ["warnings"]) if row["warnings"]]
    if noted:
        show(f"Scenes or tiles with warnings: {len(noted)}, in the last column of {snakemake.output.csv}")
    for caution in cautions(read_record(Path(snakemake.output.json))["entries"], config(snakemake)):
        show(f"Warning: {caution}")
