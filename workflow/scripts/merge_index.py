"""Write the index of all tiles."""

from pathlib import Path

from _job import config, keeping, logged

from tmcnet.raster.tiling.tiles import merge_index
from tmcnet.recovery import write_source_record

folder = Path(snakemake.output.index).parent
with logged(snakemake), keeping(snakemake, folder.parent, "tiles"):
    tables = [Path(path) for path in snakemake.input.tables]
    modalities = snakemake.params.modalities
    inventories = [Path(path) for path in snakemake.input.inventories]
    first = inventories[0] if inventories else None
    merge_index(tables, first, config(snakemake).labels, modalities, folder)
    write_source_record(tables, inventories, snakemake.params.cut_from, modalities, Path(snakemake.output.source))
