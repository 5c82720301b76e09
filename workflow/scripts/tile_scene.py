"""Cut one scene into tiles, or convert all ready-made tiles."""

from pathlib import Path

from _job import config, logged

from tmcnet.config import SensorsConfig, TilesConfig
from tmcnet.raster.tiling.tiles import cut_tiles

with logged(snakemake):
    cut_tiles(
        Path(snakemake.input.inventory),
        Path(snakemake.params.scenes_root),
        SensorsConfig.model_validate(snakemake.params.sensors),
        config(snakemake).labels,
        TilesConfig.model_validate(snakemake.params.tiles),
        Path(snakemake.output.table),
        snakemake.threads,
    )
