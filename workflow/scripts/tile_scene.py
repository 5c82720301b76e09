"""Cut one scene into tiles, or convert all ready-made tiles."""

from pathlib import Path

from _job import config, logged, settings_digest

from tmcnet.config import SensorsConfig, TilesConfig
from tmcnet.raster.tiling.tiles import cut_tiles, resolve_store

with logged(snakemake):
    table = Path(snakemake.output.table)
    results = table.parents[2]
    cut_tiles(
        Path(snakemake.input.inventory),
        results / "scenes",
        SensorsConfig.model_validate(snakemake.params.sensors),
        config(snakemake).labels,
        resolve_store(TilesConfig.model_validate(snakemake.params.tiles), results / "inventory.json"),
        table,
        snakemake.threads,
        settings_digest(snakemake),
    )
