"""Compute the band statistics of the training tiles."""

from pathlib import Path

from _job import keeping, logged

from tmcnet.config import NormaliseConfig, SensorsConfig
from tmcnet.dataset.normalise import compute_normalisation

out = Path(snakemake.output.json)
with logged(snakemake), keeping(snakemake, out.parent, "normalisation"):
    compute_normalisation(
        Path(snakemake.input.tiles).parent,
        Path(snakemake.input.train).parent,
        SensorsConfig.model_validate(snakemake.params.sensors),
        NormaliseConfig.model_validate(snakemake.params.normalise),
        out,
    )
