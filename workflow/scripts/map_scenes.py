"""Map whole scenes with one network, or the first test tiles of a source of ready-made tiles."""

from pathlib import Path

from _job import logged

from tmcnet.config import ComputeConfig, MapsConfig
from tmcnet.evaluate.maps import SceneImages, map_scenes
from tmcnet.raster.tiling.grid import require_scenes
from tmcnet.splits.verify import verified_list
from tmcnet.store import TileStore

with logged(snakemake.log[0]):
    config = MapsConfig.model_validate(snakemake.params.maps)
    store = TileStore(Path(snakemake.input.tiles).parent)
    root = Path(snakemake.params.scenes_root)
    modalities = snakemake.params.modalities
    if snakemake.params.scenes:
        folders = {scene: root / scene for scene in snakemake.params.scenes}
        require_scenes(folders.values(), modalities)
        images = [
            SceneImages(scene, {name: folder / f"{name}.tif" for name in modalities})
            for scene, folder in folders.items()
        ]
    else:
        images = [
            SceneImages(tile, {name: store.path(name, tile) for name in modalities})
            for tile in verified_list(Path(snakemake.input.test).parent, "test")[: config.max_tiles]
        ]
    map_scenes(
        weights=Path(snakemake.input.weights),
        scenes=images,
        classes=store.classes,
        config=config,
        compute=ComputeConfig(**snakemake.params.compute, finetune_threads=snakemake.threads),
        run_name=snakemake.wildcards.run,
        maps_root=Path(snakemake.output.table).parent,
        table=Path(snakemake.output.table),
    )
