# Stage 5: self-supervised pre-training.
#   input:  tiles of pretrain.parts without labels, {results_dir}/normalisation.json
#   output: {results_dir}/pretrain/<method>/{weights.safetensors,curves.csv,summary.json}


rule pretrain_method:
    input:
        tiles=INDEX,
        lists=[LIST(list_file("{fold}", part)) for part in CONFIG.pretrain.parts],
        normalisation=str(rules.normalise.output.json),
        # Without a probe, pre-training depends on no label.
        probe=(
            [LIST(list_file("{fold}", CONFIG.pretrain.probe.subset)), VAL]
            if CONFIG.pretrain.probe.every
            else []
        ),
        initial=CONFIG.pretrain.initial_weights or [],
    output:
        weights=f"{RESULTS}/{{fold}}pretrain/{{method}}/weights.safetensors",
        curves=f"{RESULTS}/{{fold}}pretrain/{{method}}/curves.csv",
        summary=f"{RESULTS}/{{fold}}pretrain/{{method}}/summary.json",
    log:
        f"{RESULTS}/{{fold}}logs/pretrain/{{method}}.log",
    benchmark:
        f"{RESULTS}/{{fold}}benchmarks/pretrain/{{method}}.tsv"
    # Start early: most runs of the sweep need these weights.
    priority: 10
    conda:
        "../envs/tmcnet.yaml"
    threads: CONFIG.compute.devices * CONFIG.compute.pretrain_threads
    resources:
        **across_nodes(CONFIG.compute.nodes, CONFIG.compute.devices),
        gpu=gpus(CONFIG.compute.processes),
        # In `resources`, not `params`: memory, threads and processes change results by rounding only and rerun nothing.
        mem_mb=memory(
            cached=True,
            processes=CONFIG.compute.devices,
            loaders=loaders(CONFIG.compute.devices * CONFIG.compute.pretrain_threads),
        ),
        runtime=growing(1440),
        # All other resources are those of each node, but GPUs are counted together.
        nodes=CONFIG.compute.nodes,
        processes=CONFIG.compute.devices,
        cache_mib=round(CONFIG.compute.cache_gib * 1024),
        checkpoint_every=CONFIG.pretrain.checkpoint_every,
    params:
        **section("model", "sensors"),
        **code_version("pretrain"),
        compute=CONFIG.compute.numerics(),
        method=method_of,
        pretrain=CONFIG.pretrain.model_dump(
            mode="json", exclude={"methods", "weights", "checkpoint_every"}
        ),
        # A killed run resumes from here. It is not an output, because Snakemake deletes those before a job starts.
        state=lambda wildcards: f"{RESULTS}/{wildcards.fold}.state/pretrain/{wildcards.method}",
    message:
        "Pre-training: {wildcards.method}"
    script:
        "../scripts/pretrain_method.py"


PRETRAINED = expand(
    rules.pretrain_method.output, method=CONFIG.pretrain.methods, fold=FOLDS.values()
)


rule pretrain:
    input:
        PRETRAINED,
        LOST,
