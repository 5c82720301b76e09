"""Write tiles and lists in the layout of the published code."""

from pathlib import Path

from _job import logged

from tmcnet.dataset.seed_export import export_seed_layout

with logged(snakemake):
    export_seed_layout(
        Path(snakemake.input.tiles).parent,
        Path(snakemake.input.manifest).parent,
        Path(snakemake.output[0]),
        snakemake.params.others,
    )
