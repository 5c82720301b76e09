"""Write one map with the names and colours of its classes."""

from pathlib import Path

from _job import logged

from tmcnet.classes import ClassTable
from tmcnet.config import MapsConfig
from tmcnet.evaluate.map_files import MapRecord, style_map

with logged(snakemake.log[0]):
    given = snakemake.params.classes
    style_map(
        Path(snakemake.input.ids),
        ClassTable.of(map(tuple, given)) if given else MapRecord.read(Path(snakemake.input.record)).classes,
        MapsConfig.model_validate(snakemake.params.formats),
        Path(snakemake.output.map),
    )
