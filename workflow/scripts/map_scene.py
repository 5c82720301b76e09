"""Map one scene with one network."""

from pathlib import Path

from _job import config, logged

from tmcnet.classes import ClassTable
from tmcnet.config import ComputeConfig, MapsConfig
from tmcnet.evaluate.maps import SceneImages, map_scene
from tmcnet.raster.tiling.grid import require_scenes

with logged(snakemake):
    wildcards, modalities = snakemake.wildcards, snakemake.params.modalities
    folder = Path(snakemake.input.scene).parent
    require_scenes([folder], modalities)
    settings = config(snakemake)
    given = [(c.name, c.color) for c in settings.labels.classes] if wildcards.run in settings.maps.models else []
    record = map_scene(
        weights=Path(snakemake.input.weights),
        scene=SceneImages(wildcards.scene, {name: folder / f"{name}.tif" for name in modalities}),
        classes=ClassTable.of(given) if given else None,
        config=MapsConfig.model_validate(snakemake.params.maps),
        compute=ComputeConfig(**snakemake.params.compute, finetune_threads=snakemake.threads),
        run_name=wildcards.run,
        prediction=Path(snakemake.output.prediction),
    )
    record.write(Path(snakemake.output.record))
