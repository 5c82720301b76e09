"""Divide the tiles into parts and label fractions."""

from pathlib import Path

from _job import config, keeping, logged, show

from tmcnet.readers import read_record
from tmcnet.splits.files import find_lists
from tmcnet.splits.splits import make_splits

folder = Path(snakemake.output.manifest).parent
with logged(snakemake), keeping(snakemake, folder.parent, "splits", lambda: find_lists(folder)):
    fold = snakemake.params.splits["fold"]
    make_splits(Path(snakemake.input.index), config(snakemake).splits.model_copy(update={"fold": fold}), folder)
    for marker in folder.glob(".lists_*"):
        marker.unlink()
    Path(snakemake.output.marker).touch()
    for warning in read_record(Path(snakemake.output.manifest)).get("warnings", []):
        show(f"Warning: {warning}")
