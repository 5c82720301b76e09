"""Pool the scores of all folds of one run."""

from pathlib import Path

from _job import logged

from tmcnet.config import Run
from tmcnet.evaluate.evaluate import pool_folds

with logged(snakemake):
    pool_folds(
        [Path(path).parent for path in snakemake.input.metrics],
        Run.parse(snakemake.params.run),
        Path(snakemake.output.metrics).parent,
    )
