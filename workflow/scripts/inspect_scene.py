"""Check the rasters of one scene, or of all ready-made tiles."""

from pathlib import Path

from _job import config, logged

from tmcnet.raster.inventory.inventory import inspect_scenes

with logged(snakemake):
    settings = config(snakemake)
    inspect_scenes(
        settings.source,
        settings.sensors,
        settings.labels,
        Path(settings.data_root),
        None if snakemake.params.tiled else [snakemake.wildcards.scene],
        Path(snakemake.output.record),
        snakemake.threads,
    )
