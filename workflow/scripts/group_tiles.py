"""List the test tiles of each group of `evaluate.groups`."""

from pathlib import Path

from _job import logged

from tmcnet.config.results import TileGroup
from tmcnet.evaluate.groups import group_tiles

with logged(snakemake):
    group_tiles(
        tiles_root=Path(snakemake.input.tiles).parent,
        splits=[Path(test).parent for test in snakemake.input.tests],
        groups={name: TileGroup.model_validate(group) for name, group in snakemake.params.groups.items()},
        bands=snakemake.params.bands,
        out=Path(snakemake.output.groups),
    )
