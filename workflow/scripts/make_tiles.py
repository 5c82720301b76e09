"""Cut all scenes into tiles, or convert ready-made tiles, and index them."""

from pathlib import Path

from _job import logged

from tmcnet.config import LabelsConfig, SensorsConfig, TilesConfig
from tmcnet.raster.tiling.tiles import make_tiles

with logged(snakemake.log[0]):
    make_tiles(
        Path(snakemake.input.inventory),
        Path(snakemake.params.scenes_root),
        SensorsConfig.model_validate(snakemake.params.sensors),
        LabelsConfig.model_validate(snakemake.params.labels),
        TilesConfig.model_validate(snakemake.params.tiles),
        Path(snakemake.output.index).parent,
        snakemake.threads,
    )
