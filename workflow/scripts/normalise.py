"""Compute the band statistics of the training tiles."""

from pathlib import Path

from _job import logged

from tmcnet.config import NormaliseConfig, SensorsConfig
from tmcnet.dataset.normalise import compute_normalisation

with logged(snakemake):
    compute_normalisation(
        Path(snakemake.input.tiles).parent,
        Path(snakemake.input.train).parent,
        SensorsConfig.model_validate(snakemake.params.sensors),
        NormaliseConfig.model_validate(snakemake.params.normalise),
        Path(snakemake.output.json),
    )
