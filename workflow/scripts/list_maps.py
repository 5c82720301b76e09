"""Write the table of the maps of one network."""

from pathlib import Path

from _job import logged

from tmcnet.evaluate.map_files import MapRecord, list_maps

with logged(snakemake.log[0]):
    paths = zip(snakemake.params.scenes, snakemake.input.records, strict=True)
    records = {scene: MapRecord.read(Path(path)) for scene, path in paths}
    list_maps(records, snakemake.wildcards.run, Path(snakemake.output.table))
