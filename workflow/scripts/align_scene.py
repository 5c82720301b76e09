"""Register the modalities and the label of one scene on one grid."""

from pathlib import Path

from _job import config, logged, settings_digest

from tmcnet.config import AlignConfig, SensorsConfig
from tmcnet.raster.tiling.grid import align_scene

with logged(snakemake):
    align_scene(
        Path(snakemake.input.record),
        snakemake.wildcards.scene,
        SensorsConfig.model_validate(snakemake.params.sensors),
        config(snakemake).labels,
        AlignConfig.model_validate(snakemake.params.align),
        Path(snakemake.output.record).parent,
        snakemake.threads,
        settings_digest(snakemake),
    )
