"""Record the results folder in MLflow."""

from pathlib import Path

from _job import logged
from _provenance import provenance

from tmcnet.config import Config
from tmcnet.tracking import sync

with logged(snakemake):
    results = Path(snakemake.params.results)
    tags = provenance(results, snakemake.input.data_version)
    sync(results, Config.model_validate(snakemake.params.config), tags)
