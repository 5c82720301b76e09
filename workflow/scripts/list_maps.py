"""Write the table of the maps of one network, and the areas of classes in all of them."""

from pathlib import Path

from _job import logged

from tmcnet.evaluate.map_files import MapRecord, list_maps

with logged(snakemake):
    paths, scores = zip(snakemake.params.scenes, snakemake.input.records, strict=True), snakemake.input.scores
    records = {scene: MapRecord.read(Path(path)) for scene, path in paths}
    blocks = next(iter(records.values())).test_blocks(Path(scores) if scores else None)
    list_maps(records, snakemake.wildcards.run, Path(snakemake.output.table), blocks, snakemake.params.level)
