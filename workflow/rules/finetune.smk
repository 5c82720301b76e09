# Stage 6: supervised fine-tuning, one job a run.
#   needs: training and validation tiles with their labels, {results_dir}/pretrain/<method>/weights.safetensors
#   gives: {results_dir}/finetune/<run>/{weights.safetensors,curves.csv,summary.json}


rule finetune_run:
    input:
        tiles=rules.make_tiles.output.index,
        splits=rules.make_splits.output.manifest,
        normalisation=rules.normalise.output.json,
        start=start_weights,
    output:
        weights=f"{RESULTS}/{{fold}}finetune/{{run}}/weights.safetensors",
        curves=f"{RESULTS}/{{fold}}finetune/{{run}}/curves.csv",
        summary=f"{RESULTS}/{{fold}}finetune/{{run}}/summary.json",
    log:
        f"{RESULTS}/{{fold}}logs/finetune/{{run}}.log",
    benchmark:
        f"{RESULTS}/{{fold}}benchmarks/finetune/{{run}}.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: CONFIG.compute.finetune_threads
    resources:
        gpu=int(CONFIG.compute.accelerator == "gpu"),
        # Memory and threads rerun nothing: no result depends on them.
        mem_mb=CONFIG.compute.memory_mb(cached=True),
        cache_mib=round(CONFIG.compute.cache_gib * 1024),
    params:
        **section("model", "sensors"),
        compute=CONFIG.compute.numerics(),
        # A killed run resumes from here; outside the outputs, which Snakemake deletes before a job starts.
        run=run_of,
        finetune=CONFIG.finetune.model_dump(mode="json", exclude={"sweep"}),
        state=lambda wildcards: f"{RESULTS}/{wildcards.fold}.state/finetune/{wildcards.run}",
    message:
        "Fine-tuning {wildcards.run}"
    script:
        "../scripts/finetune_run.py"


rule finetune:
    input:
        expand(rules.finetune_run.output, run=RUNS, fold=FOLDS.values()),
