"""Divide the tiles into parts and label fractions."""

from pathlib import Path

from _job import config, keeping, logged, show

from tmcnet.readers import read_record
from tmcnet.splits.files import find_lists, require_unlabelled
from tmcnet.splits.splits import make_splits

folder = Path(snakemake.output.manifest).parent
with logged(snakemake), keeping(snakemake, folder.parent, "splits", lambda: find_lists(folder)):
    fold = snakemake.params.splits["fold"]
    whole = config(snakemake)
    make_splits(Path(snakemake.input.index), whole.splits.model_copy(update={"fold": fold}), folder)
    # here and not only in the jobs that find no tile to label, which wait for the training of their teachers
    require_unlabelled(folder, {run.subset for run in whole.runs if whole.finetune.teacher_of(run)})
    for marker in folder.glob(".lists_*"):
        marker.unlink()
    Path(snakemake.output.marker).touch()
    for warning in read_record(Path(snakemake.output.manifest)).get("warnings", []):
        show(f"Warning: {warning}")
