"""Score one run on the test part."""

from pathlib import Path

from _job import logged

from tmcnet.config import ComputeConfig, EvaluateConfig, Run
from tmcnet.evaluate.evaluate import evaluate_run

with logged(snakemake):
    evaluate_run(
        tiles_root=Path(snakemake.input.tiles).parent,
        splits=Path(snakemake.input.test).parent,
        weights=Path(snakemake.input.weights),
        run=Run.parse(snakemake.params.run),
        config=EvaluateConfig.model_validate(snakemake.params.evaluate),
        compute=ComputeConfig(**snakemake.params.compute, finetune_threads=snakemake.threads),
        out=Path(snakemake.output.metrics).parent,
    )
