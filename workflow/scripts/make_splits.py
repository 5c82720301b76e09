"""Divide the tiles into parts and label fractions."""

from pathlib import Path

from _job import logged

from tmcnet.config import SplitsConfig
from tmcnet.splits.splits import make_splits

with logged(snakemake):
    make_splits(
        Path(snakemake.input.index),
        SplitsConfig.model_validate(snakemake.params.splits),
        Path(snakemake.output.manifest).parent,
    )
