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
        files = Path(gate).parent.glob("*.txt")
        earlier = {name for file in files for name in file.read_text(errors="replace").splitlines()}
        new = {Path(path).stem for path in snakemake.input.inventories} - earlier
        Path(gate).write_text("".join(f"{name}\n" for name in sorted(new)))
