# Stage 7: scores on the test part, and maps of whole scenes.
#   input:  {results_dir}/finetune/<run>/weights.safetensors (or files of `maps.models`), test tiles,
#           {results_dir}/scenes/
#   output: {results_dir}/evaluate/<run>/{metrics.json,tiles.npz}; with cross-validation, the scores of each fold are in
#           {results_dir}/folds/<n>/evaluate/, and pooled in evaluate/
#           {results_dir}/metrics.csv, metrics.json, comparisons.csv, scores.json; with `evaluate.groups` also
#           evaluate/groups.json (their test tiles), groups.csv and group_comparisons.csv
#           {results_dir}/maps/<scene>/<run>.tif, <run>_confidence.tif, <run>_areas.csv, <run>.png, <run>.qml, on
#           request <run>_rgb.tif and <run>.gpkg; maps/<run>.csv and, with the areas of all scenes,
#           maps/<run>_areas.csv; <run> may also be a name of `maps.models`
#           {results_dir}/models/<run>/model.safetensors: the network with its test scores, for `tmcnet predict`


rule evaluate_run:
    input:
        tiles=INDEX,
        test=lambda wildcards: LIST(list_file(TESTED[wildcards.tested], "test")),
        val=lambda wildcards: LIST(list_file(TESTED[wildcards.tested], "val")),
        weights=in_tested_fold(rules.finetune_run.output.weights),
    output:
        metrics=f"{RESULTS}/{{tested}}evaluate/{{run}}/metrics.json",
        tiles=f"{RESULTS}/{{tested}}evaluate/{{run}}/tiles.npz",
    log:
        f"{RESULTS}/{{tested}}logs/evaluate/{{run}}.log",
    benchmark:
        f"{RESULTS}/{{tested}}benchmarks/evaluate/{{run}}.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: CONFIG.compute.finetune_threads
    resources:
        gpu=gpus_of_run,
        mem_mb=memory(cached=False),
        runtime=growing(120),
    params:
        **code_version("evaluate"),
        # Intervals are drawn later, in `summarise` and `map_scene`.
        evaluate=CONFIG.evaluate.model_dump(
            mode="json", exclude={"bootstrap", "confidence", "groups"}
        )
        | {"withheld": CONFIG.scores_withheld},
        compute=CONFIG.compute.numerics(),
        run=run_of,
    message:
        "Scoring {wildcards.run} on the test part"
    script:
        "../scripts/evaluate_run.py"


if CONFIG.splits.folds:

    rule pool_folds:
        input:
            metrics=expand(
                rules.evaluate_run.output.metrics, tested=TESTED, allow_missing=True
            ),
            tiles=expand(
                rules.evaluate_run.output.tiles, tested=TESTED, allow_missing=True
            ),
        output:
            metrics=f"{RESULTS}/evaluate/{{run}}/metrics.json",
            tiles=f"{RESULTS}/evaluate/{{run}}/tiles.npz",
        log:
            f"{RESULTS}/logs/pool/{{run}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/pool/{{run}}.tsv"
        localrule: True
        conda:
            "../envs/tmcnet.yaml"
        threads: 1
        resources:
            **SMALL,
        params:
            run=run_of,
        message:
            "Pooling the folds of {wildcards.run}"
        script:
            "../scripts/pool_folds.py"


SCORES = f"{RESULTS}/evaluate/{{run}}/metrics.json"


MAP_PARAMS = CONFIG.maps.model_dump(
    mode="json", include={"window", "overlap", "batch_size", "test_time"}
)
# What the classes and confidence of a scene depend on, beside its rasters and the weights.
PREDICTION = {
    **code_version("maps"),
    "modalities": list(CONFIG.sensors),
    "maps": MAP_PARAMS,
    "compute": CONFIG.compute.numerics(),
}
MAP_FORMATS = CONFIG.maps.model_dump(
    mode="json", include={"rgb", "polygons", "minimum_mapping_unit"}
)


if TILED:

    rule map_tiles:
        input:
            weights=MAP_WEIGHTS,
            tiles=INDEX,
            test=LIST(list_file("", "test")),
            scores=MAP_SCORES,
        output:
            table=f"{RESULTS}/maps/{{run}}.csv",
            areas=f"{RESULTS}/maps/{{run}}_areas.csv",
        log:
            f"{RESULTS}/logs/maps/{{run}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/maps/{{run}}.tsv"
        conda:
            "../envs/tmcnet.yaml"
        threads: CONFIG.compute.finetune_threads
        resources:
            gpu=gpus_of_run,
            mem_mb=memory(cached=False),
            runtime=growing(720),
        params:
            **code_version("maps"),
            modalities=list(CONFIG.sensors),
            maps={**MAP_PARAMS, **MAP_FORMATS, "max_tiles": CONFIG.maps.max_tiles},
            classes=MAP_CLASSES,
            level=CONFIG.evaluate.confidence,
            compute=CONFIG.compute.numerics(),
        message:
            "Mapping test tiles with {wildcards.run}"
        script:
            "../scripts/map_tiles.py"

else:

    rule map_strip:
        input:
            weights=MAP_WEIGHTS,
            scene=f"{RESULTS}/scenes/{{scene}}/alignment.json",
        output:
            prediction=temp(
                f"{RESULTS}/maps/{{scene}}/.{{run}}_strip_{{number}}_of_{{strips}}.tif"
            ),
            record=temp(
                f"{RESULTS}/maps/{{scene}}/.{{run}}_strip_{{number}}_of_{{strips}}.record"
            ),
        log:
            f"{RESULTS}/logs/maps/{{scene}}/{{run}}_strip_{{number}}_of_{{strips}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/maps/{{scene}}/{{run}}_strip_{{number}}_of_{{strips}}.tsv"
        conda:
            "../envs/tmcnet.yaml"
        threads: CONFIG.compute.finetune_threads
        resources:
            gpu=gpus_of_run,
            mem_mb=map_memory,
            runtime=growing(720),
        params:
            prediction=PREDICTION,
        message:
            "Mapping {wildcards.scene} with {wildcards.run}, strip {wildcards.number} of {wildcards.strips}"
        script:
            "../scripts/map_scene.py"

    rule map_scene:
        input:
            weights=MAP_WEIGHTS,
            scene=f"{RESULTS}/scenes/{{scene}}/alignment.json",
            # A giant scene is mapped by several jobs, and only joined here.
            strips=strips,
            scores=MAP_SCORES,
        # Beside them the job keeps what the network predicted, and repeats it only if that would change: not for other
        # names, colours or formats.
        output:
            map=f"{RESULTS}/maps/{{scene}}/{{run}}.tif",
            confidence=f"{RESULTS}/maps/{{scene}}/{{run}}_confidence.tif",
            areas=f"{RESULTS}/maps/{{scene}}/{{run}}_areas.csv",
            picture=f"{RESULTS}/maps/{{scene}}/{{run}}.png",
            style=f"{RESULTS}/maps/{{scene}}/{{run}}.qml",
        log:
            f"{RESULTS}/logs/maps/{{scene}}/{{run}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/maps/{{scene}}/{{run}}.tsv"
        conda:
            "../envs/tmcnet.yaml"
        threads: CONFIG.compute.finetune_threads
        resources:
            gpu=map_gpus if gpus() else 0,
            mem_mb=map_memory,
            runtime=growing(720),
        params:
            **code_version("style"),
            prediction=PREDICTION,
            formats=MAP_FORMATS,
            classes=MAP_CLASSES,
            level=CONFIG.evaluate.confidence,
        message:
            "Mapping {wildcards.scene} with {wildcards.run}"
        script:
            "../scripts/map_scene.py"

    rule list_maps:
        input:
            areas=expand(
                f"{RESULTS}/maps/{{scene}}/{{run}}_areas.csv",
                scene=SCENES,
                allow_missing=True,
            ),
            scores=MAP_SCORES,
        output:
            table=f"{RESULTS}/maps/{{run}}.csv",
            areas=f"{RESULTS}/maps/{{run}}_areas.csv",
        log:
            f"{RESULTS}/logs/maps/{{run}}.log",
        localrule: True
        conda:
            "../envs/tmcnet.yaml"
        threads: 1
        resources:
            **SMALL,
        params:
            scenes=SCENES,
            level=CONFIG.evaluate.confidence,
        message:
            "Listing the maps of {wildcards.run}"
        script:
            "../scripts/list_maps.py"


rule write_model:
    input:
        weights=in_main_fold(rules.finetune_run.output.weights),
        scores=MAP_SCORES,
    output:
        model=f"{RESULTS}/models/{{run}}/model.safetensors",
    log:
        f"{RESULTS}/logs/models/{{run}}.log",
    localrule: True
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    message:
        "Writing {wildcards.run} with its test scores as one file"
    script:
        "../scripts/write_model.py"


rule group_tiles:
    input:
        tiles=INDEX,
        tests=[LIST(list_file(fold, "test")) for fold in TESTED.values()],
    output:
        groups=f"{RESULTS}/evaluate/groups.json",
    log:
        f"{RESULTS}/logs/groups.log",
    benchmark:
        f"{RESULTS}/benchmarks/groups/all.tsv"
    localrule: True
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    params:
        groups=CONFIG.evaluate.model_dump(mode="json")["groups"],
        bands={name: sensor.bands for name, sensor in CONFIG.sensors.items()},
    message:
        "Looking for the test tiles of the groups"
    script:
        "../scripts/group_tiles.py"


rule summarise:
    input:
        metrics=expand(SCORES, run=RUNS),
        index=INDEX,
        manifest=in_main_fold(rules.make_splits.output.manifest),
        groups=rules.group_tiles.output.groups if CONFIG.evaluate.groups else [],
        gaps=GAPS,
    output:
        csv=f"{RESULTS}/metrics.csv",
        json=f"{RESULTS}/metrics.json",
        comparisons=f"{RESULTS}/comparisons.csv",
        scores=f"{RESULTS}/scores.json",
        groups=(
            expand(f"{RESULTS}/{{name}}.csv", name=["groups", "group_comparisons"])
            if CONFIG.evaluate.groups
            else []
        ),
    log:
        f"{RESULTS}/logs/summarise.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarise/all.tsv"
    localrule: True
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    params:
        **section("evaluate"),
        **code_version("summary"),
        evaluate_root=folder("evaluate"),
        runs=list(RUNS),
        classes=[c.name for c in CONFIG.labels.classes],
    message:
        "Comparing the runs"
    script:
        "../scripts/summarise.py"


rule evaluate:
    input:
        plain(rules.summarise.output),
        LOST,


MAPS = [
    *expand(f"{RESULTS}/maps/{{run}}.csv", run=MAPPED),
    *expand(f"{RESULTS}/models/{{run}}/model.safetensors", run=MAP_RUNS),
]


# Maps and networks are what users take away: those that were deleted are made again, although no later file needs them.
# Runs without a table of their maps are not finished, and plan all of them.
GONE = [
    file
    for file in (
        *MAPS,
        *(
            file
            for run in MAPPED
            if not TILED and Path(f"{RESULTS}/maps/{run}.csv").is_file()
            for file in expand(rules.map_scene.output, scene=SCENES, run=run)
        ),
    )
    if workflow.is_main_process and not Path(file).exists()
]


rule maps:
    input:
        MAPS,
        GONE,
        LOST,
