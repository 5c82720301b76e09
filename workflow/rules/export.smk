# On demand: trained networks as ONNX, for programs without torch.
#   input:  {results_dir}/finetune/<run>/weights.safetensors, evaluate/<run>/metrics.json, splits/manifest.json, tiles
#   output: {results_dir}/models/<run>/{model.onnx,card.json}


rule export_model:
    input:
        weights=in_main_fold(rules.finetune_run.output.weights),
        metrics=SCORES,
        tiles=INDEX,
        manifest=in_main_fold(rules.make_splits.output.manifest),
    output:
        model=f"{RESULTS}/models/{{run}}/model.onnx",
        card=f"{RESULTS}/models/{{run}}/card.json",
    log:
        f"{RESULTS}/logs/export/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/export/{{run}}.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        mem_mb=memory(cached=False),
        runtime=growing(60),
    message:
        "Writing {wildcards.run} as ONNX"
    script:
        "../scripts/export_model.py"


rule export:
    input:
        expand(rules.export_model.output, run=MAP_RUNS),
        LOST,
