"""Pre-train both encoders with one method."""

from pathlib import Path

from _job import logged

from tmcnet.config import ComputeConfig, MethodConfig, ModelConfig, PretrainConfig, SensorsConfig
from tmcnet.train.pretrain import Pretraining, pretrain

with logged(snakemake):
    work = Pretraining(
        tiles_root=Path(snakemake.input.tiles).parent,
        splits=Path(snakemake.input.lists[0]).parent,
        normalisation=Path(snakemake.input.normalisation),
        name=snakemake.wildcards.method,
        method=MethodConfig.model_validate(snakemake.params.method),
        config=PretrainConfig.model_validate(
            {**snakemake.params.pretrain, "checkpoint_every": snakemake.resources.checkpoint_every}
        ),
        model=ModelConfig.model_validate(snakemake.params.model),
        sensors=SensorsConfig.model_validate(snakemake.params.sensors),
        compute=ComputeConfig(
            **snakemake.params.compute,
            nodes=snakemake.resources.nodes,
            devices=snakemake.resources.processes,
            pretrain_threads=max(snakemake.threads // snakemake.resources.processes, 1),
            cache_gib=snakemake.resources.cache_mib / 1024,
        ),
        out=Path(snakemake.output.weights).parent,
        state=Path(snakemake.params.state),
    )
    pretrain(work)
