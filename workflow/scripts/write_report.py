"""Write the report."""

from pathlib import Path

from _job import logged
from _provenance import provenance

from tmcnet.config import Config
from tmcnet.raster.tiling.unchanged import require_same_settings
from tmcnet.report import build

with logged(snakemake):
    results = Path(snakemake.params.results)
    require_same_settings(map(Path, snakemake.input.alignment))
    versions = provenance(results, snakemake.input.data_version)
    build(results, Config.model_validate(snakemake.params.config), Path(snakemake.output.page), versions)
