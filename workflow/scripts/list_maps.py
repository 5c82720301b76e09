"""Write the table of the maps of one network, and the areas of classes in all of them."""

from pathlib import Path

from _job import logged

from tmcnet.evaluate.map_files import MapPaths, MapRecord, list_maps

with logged(snakemake):
    run, table, scores = snakemake.wildcards.run, Path(snakemake.output.table), snakemake.input.scores
    maps = {scene: table.with_name(scene) / f"{run}.tif" for scene in snakemake.params.scenes}
    records = {scene: MapRecord.read(MapPaths.of(path).record) for scene, path in maps.items()}
    blocks = next(iter(records.values())).test_blocks(Path(scores) if scores else None)
    list_maps(records, run, table, blocks, snakemake.params.level)
