# Stage 6: supervised fine-tuning, one job per run.
#   input:  training and validation tiles with labels, {results_dir}/pretrain/<method>/weights.safetensors
#   output: {results_dir}/finetune/<run>/{weights.safetensors,curves.csv,summary.json}


rule finetune_run:
    input:
        tiles=INDEX,
        train=TRAIN,
        val=VAL,
        labels=lambda wildcards: LIST(
            list_file(wildcards.fold, TRAINED[run_of(wildcards)].subset)
        ),
        normalisation=str(rules.normalise.output.json),
        start=start_weights,
        members=member_weights,
        teacher=teacher_weights,
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
    threads: lambda wildcards: sharing(wildcards)[1] * CONFIG.compute.finetune_threads
    resources:
        **{
            name: lambda wildcards, name=name: across_nodes(*sharing(wildcards)).get(
                name
            )
            for name in ("mpi", "tasks", "tasks_per_gpu", "gres")
        },
        gpu=lambda wildcards: math.prod(sharing(wildcards)) * gpus_of_run(wildcards),
        # In `resources`, not `params`: memory, threads and processes change results by rounding only and rerun nothing.
        mem_mb=training_memory,
        runtime=growing(720),
        nodes=lambda wildcards: sharing(wildcards)[0],
        processes=lambda wildcards: sharing(wildcards)[1],
        cache_mib=round(CONFIG.compute.cache_gib * 1024),
    params:
        **section("model", "sensors"),
        **code_version("finetune"),
        compute=CONFIG.compute.numerics(),
        run=run_of,
        finetune=finetune_settings,
        # A killed run resumes from here. It is not an output, because Snakemake deletes those before a job starts.
        state=lambda wildcards: f"{RESULTS}/{wildcards.fold}.state/finetune/{wildcards.run}",
    message:
        "Fine-tuning {wildcards.run}"
    script:
        "../scripts/finetune_run.py"


FINETUNED = expand(rules.finetune_run.output, run=RUNS, fold=FOLDS.values())


rule finetune:
    input:
        FINETUNED,
        LOST,
