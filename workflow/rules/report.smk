# Stage 8: the record for MLflow, and the report.
#   needs: everything above
#   gives: {results_dir}/tracking.csv and the records in MLflow, {results_dir}/report.html


rule track:
    input:
        metrics=rules.summarise.output,
        pretrain=rules.pretrain.input,
        finetune=rules.finetune.input,
    output:
        f"{RESULTS}/tracking.csv",
    log:
        f"{RESULTS}/logs/tracking.log",
    benchmark:
        f"{RESULTS}/benchmarks/tracking/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    params:
        results=lambda wildcards, output: str(Path(output[0]).parent),
        config=CONFIG.model_dump(mode="json", exclude={"report"}),
    message:
        "Recording the runs in MLflow"
    script:
        "../scripts/track.py"


rule write_report:
    input:
        inventory=rules.take_inventory.output,
        alignment=rules.alignment.input,
        manifest=rules.make_splits.output.manifest,
        pretrain=rules.pretrain.input,
        finetune=rules.finetune.input,
        metrics=rules.summarise.output,
        maps=rules.maps.input,
        tracking=rules.track.output,
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    params:
        results=lambda wildcards, output: str(Path(output[0]).parent),
        config=CONFIG.model_dump(mode="json"),
    message:
        "Writing the report"
    script:
        "../scripts/write_report.py"


rule report:
    input:
        rules.write_report.output,
