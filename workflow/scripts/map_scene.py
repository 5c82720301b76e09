"""Map one scene or a strip of it with one network, or join the strips of a scene."""

from pathlib import Path

from _job import config, logged

from tmcnet.classes import ClassTable
from tmcnet.config import ComputeConfig, MapsConfig
from tmcnet.evaluate.map_files import MapRecord
from tmcnet.evaluate.maps import SceneImages, Share, join_strips, map_scene
from tmcnet.raster.tiling.unchanged import require_scenes

with logged(snakemake):
    wildcards, modalities = snakemake.wildcards, snakemake.params.modalities
    folder = Path(snakemake.input.scene).parent
    require_scenes([folder], modalities)
    scene = SceneImages(wildcards.scene, {name: folder / f"{name}.tif" for name in modalities})
    prediction = Path(snakemake.output.prediction)
    if snakemake.input.get("strips"):
        files = [Path(path) for path in snakemake.input.strips]
        strips, records = files[: len(files) // 2], files[len(files) // 2 :]
        record = join_strips(strips, scene.grid, [MapRecord.read(path) for path in records], prediction)
    else:
        settings = config(snakemake)
        given = [(c.name, c.color) for c in settings.labels.classes] if wildcards.run in settings.maps.models else []
        record = map_scene(
            weights=Path(snakemake.input.weights),
            scene=scene,
            classes=ClassTable.of(given) if given else None,
            config=MapsConfig.model_validate(snakemake.params.maps),
            compute=ComputeConfig(**snakemake.params.compute, finetune_threads=snakemake.threads),
            run_name=wildcards.run,
            prediction=prediction,
            share=Share(int(wildcards.get("number", 1)) - 1, int(wildcards.get("strips", 1))),
        )
    record.write(Path(snakemake.output.record))
