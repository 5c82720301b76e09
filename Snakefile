# Entry point: loads and checks the config, includes the stages in order, defines the targets.
#   snakemake --cores 8 results/report.html
#   snakemake --cores 8 --configfile config/recipes/zion.yaml --config data_root=/path/to/zion report
include: "workflow/rules/common.smk"


wildcard_constraints:
    scene=r"[^/]+",
    method=r"[\w-]+",
    run=r"\w[\w.-]*(?<!_confidence)(?<!_rgb)(?<!_areas)",
    number=r"[0-9]+",
    strips=r"[0-9]+",
    fold=r"(folds/[0-9]+/)?",
    tested=r"folds/[0-9]+/" if CONFIG.splits.folds else "()",


include: "workflow/rules/demo.smk"
include: "workflow/rules/rasters.smk"
include: "workflow/rules/splits.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.report.input,


localrules:
    all,
    inventory,
    alignment,
    tiles,
    splits,
    verify_splits,
    pretrain,
    finetune,
    evaluate,
    maps,
    export,
    report,


onstart:
    lock_results()
    show_cautions()


onerror:
    report_gaps()
