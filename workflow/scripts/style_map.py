"""Write the files of one map, with names, colours and areas of its classes."""

from pathlib import Path

from _job import logged

from tmcnet.classes import ClassTable
from tmcnet.config import MapsConfig
from tmcnet.evaluate.map_files import MapRecord, MapStyle, style_map

with logged(snakemake):
    record, given, scores = (
        MapRecord.read(Path(snakemake.input.record)),
        snakemake.params.classes,
        snakemake.input.scores,
    )
    style = MapStyle(
        ClassTable.of(map(tuple, given)) if given else record.classes,
        MapsConfig.model_validate(snakemake.params.formats),
        record.test_blocks(Path(scores) if scores else None),
        snakemake.params.level,
    )
    style_map(Path(snakemake.input.prediction), style, snakemake.wildcards.scene, Path(snakemake.output.map))
