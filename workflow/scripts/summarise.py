"""Collect the scores of all runs, with intervals and paired comparisons."""

from pathlib import Path

from _job import logged

from tmcnet.config import EvaluateConfig, Run
from tmcnet.evaluate.summary import summarise

with logged(snakemake):
    summarise(
        evaluate_root=Path(snakemake.params.evaluate_root),
        runs=[Run.parse(name) for name in snakemake.params.runs],
        index=Path(snakemake.input.index),
        manifest=Path(snakemake.input.manifest),
        config=EvaluateConfig.model_validate(snakemake.params.evaluate),
        out=Path(snakemake.output.csv).parent,
        classes=snakemake.params.classes,
        groups=Path(snakemake.input.groups) if snakemake.input.groups else None,
    )
