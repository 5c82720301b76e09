"""Map one scene or a strip of it with one network; the strips of a scene are joined."""

from pathlib import Path

from _job import config, logged

from tmcnet.classes import ClassTable
from tmcnet.config import ComputeConfig, MapsConfig
from tmcnet.evaluate.map_files import MapPaths, MapRecord, MapStyle, style_map
from tmcnet.evaluate.maps import SceneImages, Share, join_strips, map_scene
from tmcnet.hashing import file_digest, json_digest
from tmcnet.raster.tiling.unchanged import read_digests, require_scenes


def predict(prediction: Path, share: Share) -> MapRecord:
    """Map the scene, or join what several jobs have mapped."""
    require_scenes([folder], list(images))
    scene = SceneImages(run.scene, images)
    if strips := [Path(path) for path in snakemake.input.get("strips", [])]:
        half = len(strips) // 2
        return join_strips(strips[:half], scene.grid, [MapRecord.read(path) for path in strips[half:]], prediction)
    settings = config(snakemake)
    given = [(c.name, c.color) for c in settings.labels.classes] if run.run in settings.maps.models else []
    compute = ComputeConfig(**depends["compute"], finetune_threads=snakemake.threads)
    maps, classes = MapsConfig.model_validate(depends["maps"]), ClassTable.of(given) if given else None
    return map_scene(Path(snakemake.input.weights), scene, classes, maps, compute, run.run, prediction, share)


with logged(snakemake):
    run, depends, folder = snakemake.wildcards, snakemake.params.prediction, Path(snakemake.input.scene).parent
    images = {name: folder / f"{name}.tif" for name in depends["modalities"]}
    sources = [file_digest(snakemake.input.weights), read_digests(Path(snakemake.input.scene))]
    made_from = json_digest([*sources, depends])
    paths = MapPaths.of(Path(snakemake.output[0]).with_name(f"{run.run}.tif"))
    record = MapRecord.find(paths, made_from)
    if strip := run.get("number"):
        part, share = Path(snakemake.output.prediction), Share(int(strip) - 1, int(run.strips))
        part.touch()
        (record or predict(part, share)).write(Path(snakemake.output.record))
    else:
        if record is None:
            paths.record.unlink(missing_ok=True)  # it would be that of half a prediction if this job were killed
            record = predict(paths.prediction, Share())._replace(made_from=made_from)
            record.write(paths.record)
        shown, scores = snakemake.params.classes, snakemake.input.scores
        style = MapStyle(
            ClassTable.of(map(tuple, shown)) if shown else record.classes,
            MapsConfig.model_validate(snakemake.params.formats),
            record.test_blocks(Path(scores) if scores else None),
            snakemake.params.level,
        )
        style_map(paths.prediction, style, run.scene, paths.map)
