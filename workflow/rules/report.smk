# Stage 8: the records in MLflow, and the report.
#   input:  all other stages; maps alone if there is no scene to learn from
#   output: {results_dir}/tracking.csv, tracking.json and the records in MLflow
#           {results_dir}/report.html, and its figures and tables in report/, which `snakemake --report` also collects


report: "../report/workflow.rst"


# DVC's record of the raw data: that of the data root or of a folder above it, or else those directly inside it.
DATA_RECORDS = [
    f"{folder}.dvc"
    for folder in (Path(DATA), *Path(DATA).parents)
    if folder.name and Path(f"{folder}.dvc").is_file()
][:1] or sorted(map(str, Path(DATA).glob("*.dvc")))


# The sections that change records. Threads, memory and headings do not.
RECORDED = {
    **CONFIG.model_dump(mode="json", exclude={"compute", "report"}),
    "compute": CONFIG.compute.numerics(),
    "report": {"metric": CONFIG.report.metric},
}


rule track:
    input:
        metrics=plain(rules.summarise.output),
        pretrain=PRETRAINED,
        finetune=FINETUNED,
        maps=MAPS,
        data_version=DATA_RECORDS,
    output:
        table=f"{RESULTS}/tracking.csv",
        links=f"{RESULTS}/tracking.json",
    log:
        f"{RESULTS}/logs/tracking.log",
    benchmark:
        f"{RESULTS}/benchmarks/tracking/all.tsv"
    localrule: True
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    params:
        results=lambda wildcards, output: str(Path(output[0]).parent),
        config=RECORDED,
    message:
        "Recording the runs in MLflow"
    script:
        "../scripts/track.py"


STUDY = [
    in_main_fold(rules.make_splits.output.manifest),
    in_main_fold(MARKER),
    *PRETRAINED,
    *FINETUNED,
    *plain(rules.summarise.output),
    *plain(rules.track.output),
]


rule write_report:
    input:
        inventory=[f"{RESULTS}/inventory.json", f"{RESULTS}/inventory.csv"],
        alignment=expand(f"{RESULTS}/scenes/{{scene}}/alignment.json", scene=SCENES),
        study=STUDY if TRAINABLE else [],
        maps=MAPS,
        data_version=DATA_RECORDS,
        gaps=GAPS,
    output:
        page=report(
            f"{RESULTS}/report.html", caption="../report/page.rst", category="Report"
        ),
        figures=report(
            directory(f"{RESULTS}/report/figures"),
            patterns=["{figure}.svg", "{figure}.png", "{figure}.jpg"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        tables=report(
            directory(f"{RESULTS}/report/tables"),
            patterns=["{table}.csv"],
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/all.tsv"
    localrule: True
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    params:
        **code_version("report"),
        results=lambda wildcards, output: str(Path(output[0]).parent),
        config={**RECORDED, "report": CONFIG.report.model_dump(mode="json")},
    message:
        "Writing the report"
    script:
        "../scripts/write_report.py"


rule report:
    input:
        f"{RESULTS}/report.html",
        plain(rules.take_inventory.output),
        plain(rules.summarise.output) if TRAINABLE else [],
        GONE,
        LOST,
