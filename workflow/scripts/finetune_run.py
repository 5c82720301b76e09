"""Fine-tune one run of the sweep."""

from pathlib import Path

from _job import config, logged

from tmcnet.config import ComputeConfig, FinetuneSettings, ModelConfig, Run, SensorsConfig
from tmcnet.config.training import SelfTrainingConfig
from tmcnet.train.finetune import Finetuning, finetune

with logged(snakemake):
    settings = dict(snakemake.params.finetune)
    teaching = settings.pop("self_training", {})
    work = Finetuning(
        tiles_root=Path(snakemake.input.tiles).parent,
        splits=Path(snakemake.input.train).parent,
        normalisation=Path(snakemake.input.normalisation),
        run=Run.parse(snakemake.params.run),
        weights=Path(snakemake.input.start) if snakemake.input.start else None,
        config=FinetuneSettings.model_validate(settings),
        model=ModelConfig.model_validate(snakemake.params.model),
        sensors=SensorsConfig.model_validate(snakemake.params.sensors),
        compute=ComputeConfig(
            **snakemake.params.compute,
            nodes=snakemake.resources.nodes,
            devices=snakemake.resources.processes,
            finetune_threads=max(snakemake.threads // snakemake.resources.processes, 1),
            cache_gib=snakemake.resources.cache_mib / 1024,
        ),
        out=Path(snakemake.output.weights).parent,
        state=Path(snakemake.params.state),
        align=config(snakemake).align,
        members=tuple(Path(path) for path in snakemake.input.members),
        teacher=Path(snakemake.input.teacher) if snakemake.input.teacher else None,
        teaching=SelfTrainingConfig.model_validate(teaching),
    )
    finetune(work)
