# Stage 7: scores on the test part, and maps of whole scenes.
#   input:  {results_dir}/finetune/<run>/weights.safetensors (or files of `maps.models`), test tiles,
#           {results_dir}/scenes/
#   output: {results_dir}/evaluate/<run>/{metrics.json,tiles.npz}; with cross-validation, the scores of each fold are in
#           {results_dir}/folds/<n>/evaluate/, and pooled in evaluate/
#           {results_dir}/metrics.csv, metrics.json, comparisons.csv, scores.json
#           {results_dir}/maps/<scene>/<run>.tif, <run>_confidence.tif, on request <run>_rgb.tif and <run>.gpkg, and
#           maps/<run>.csv; <run> may also be a name of `maps.models`


rule evaluate_run:
    input:
        tiles=rules.make_tiles.output.index,
        test=in_tested_fold(rules.make_splits.output.test),
        val=in_tested_fold(rules.make_splits.output.val),
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
        gpu=int(CONFIG.compute.accelerator == "gpu"),
        mem_mb=CONFIG.compute.memory_mb(cached=False),
    params:
        **section("evaluate"),
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
        conda:
            "../envs/tmcnet.yaml"
        params:
            run=run_of,
        message:
            "Pooling the folds of {wildcards.run}"
        script:
            "../scripts/pool_folds.py"


SCORES = f"{RESULTS}/evaluate/{{run}}/metrics.json"


rule map_scenes:
    input:
        weights=map_weights,
        scenes=rules.make_tiles.input.scenes,
        tiles=rules.make_tiles.output.index,
        test=in_main_fold(rules.make_splits.output.test),
    output:
        table=f"{RESULTS}/maps/{{run}}.csv",
        maps=expand(f"{RESULTS}/maps/{{scene}}/{{{{run}}}}.tif", scene=SCENES),
        confidence=expand(
            f"{RESULTS}/maps/{{scene}}/{{{{run}}}}_confidence.tif", scene=SCENES
        ),
    log:
        f"{RESULTS}/logs/maps/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/maps/{{run}}.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: CONFIG.compute.finetune_threads
    resources:
        gpu=int(CONFIG.compute.accelerator == "gpu"),
        mem_mb=CONFIG.compute.memory_mb(cached=False),
    params:
        modalities=list(CONFIG.sensors),
        # Without the keys that select runs and models: they do not change a single map.
        maps=CONFIG.maps.model_dump(
            mode="json", exclude={"fractions", "seeds", "models"}
        ),
        compute=CONFIG.compute.numerics(),
        scenes=SCENES,
        scenes_root=folder("scenes"),
    message:
        "Mapping whole scenes with {wildcards.run}"
    script:
        "../scripts/map_scenes.py"


rule summarise:
    input:
        metrics=expand(SCORES, run=RUNS),
        index=rules.make_tiles.output.index,
        manifest=in_main_fold(rules.make_splits.output.manifest),
    output:
        csv=f"{RESULTS}/metrics.csv",
        json=f"{RESULTS}/metrics.json",
        comparisons=f"{RESULTS}/comparisons.csv",
        scores=f"{RESULTS}/scores.json",
    log:
        f"{RESULTS}/logs/summarise.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarise/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    params:
        **section("evaluate"),
        evaluate_root=folder("evaluate"),
        runs=list(RUNS),
    message:
        "Comparing the runs"
    script:
        "../scripts/summarise.py"


rule evaluate:
    input:
        rules.summarise.output,


rule maps:
    input:
        expand(rules.map_scenes.output.table, run=MAPPED),
