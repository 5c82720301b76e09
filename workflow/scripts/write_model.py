"""Write a network with its test scores as one file."""

from pathlib import Path

from _job import logged

from tmcnet.model.model_file import write_model

with logged(snakemake):
    write_model(Path(snakemake.input.weights), Path(snakemake.input.scores), Path(snakemake.output.model))
