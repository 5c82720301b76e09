"""Map the first test tiles of a source of ready-made tiles with one network."""

from pathlib import Path

from _job import logged

from tmcnet.classes import ClassTable
from tmcnet.config import ComputeConfig, MapsConfig
from tmcnet.evaluate.maps import SceneImages, map_tiles
from tmcnet.splits.files import verified_list
from tmcnet.store import TileStore

with logged(snakemake):
    config = MapsConfig.model_validate(snakemake.params.maps)
    store, shown = TileStore(Path(snakemake.input.tiles).parent), snakemake.params.classes
    map_tiles(
        weights=Path(snakemake.input.weights),
        scenes=[
            SceneImages(tile, {name: store.path(name, tile) for name in snakemake.params.modalities})
            for tile in verified_list(Path(snakemake.input.test).parent, "test")[: config.max_tiles]
        ],
        classes=store.classes,
        config=config,
        compute=ComputeConfig(**snakemake.params.compute, finetune_threads=snakemake.threads),
        run_name=snakemake.wildcards.run,
        maps_root=Path(snakemake.output.table).parent,
        table=Path(snakemake.output.table),
        scores=Path(snakemake.input.scores) if snakemake.input.scores else None,
        level=snakemake.params.level,
        shown=ClassTable.of(map(tuple, shown)) if shown else None,
    )
