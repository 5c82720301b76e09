"""Divide the tiles into parts and label fractions."""

from pathlib import Path

from _job import keeping, logged, show

from tmcnet.config import SplitsConfig
from tmcnet.readers import read_record
from tmcnet.splits.files import find_lists
from tmcnet.splits.splits import make_splits

folder = Path(snakemake.output.manifest).parent
with logged(snakemake), keeping(snakemake, folder.parent, "splits", lambda: find_lists(folder)):
    make_splits(Path(snakemake.input.index), SplitsConfig.model_validate(snakemake.params.splits), folder)
    for warning in read_record(Path(snakemake.output.manifest)).get("warnings", []):
        show(f"Warning: {warning}")
