"""Compare splits with their manifest and say what changed."""

from pathlib import Path

from _job import logged

from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError
from tmcnet.splits.splits import verify

with logged(snakemake):
    problems = verify(
        Path(snakemake.input.manifest).parent,
        Path(snakemake.input.index),
        SplitsConfig.model_validate(snakemake.params.splits),
    )
    if problems:
        raise InputError(problems)
