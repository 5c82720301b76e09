# Stage 4: parts, label fractions, and the band statistics of the training part.
#   input:  {results_dir}/tiles/index.csv (and the training tiles, for the statistics)
#   output: {results_dir}/splits/manifest.json, <list>_{RGB,SAR,lbl}.txt, tiles.csv (properties of each tile)
#           {results_dir}/normalisation.json
#           {results_dir}/folds/<n>/: the same for each other fold of a cross-validation
#           {results_dir}/seed/, on demand: tiles and lists in the layout of the published code


for FOLD in FOLDS.values():
    put_back_lost(
        "splits",
        f"{RESULTS}/{FOLD}splits",
        {"splits": splits_of(FOLD), **code_version("splits")},
        [INDEX],
        f"{RESULTS}/{FOLD}",
    )
    put_back_lost(
        "normalisation",
        f"{RESULTS}/{FOLD}",
        section("sensors", "normalise"),
        [INDEX, f"{RESULTS}/{FOLD}splits/train_RGB.txt"],
        f"{RESULTS}/{FOLD}",
    )


rule make_splits:
    input:
        index=INDEX,
    output:
        manifest=f"{RESULTS}/{{fold}}splits/manifest.json",
        tiles=f"{RESULTS}/{{fold}}splits/tiles.csv",
        train=f"{RESULTS}/{{fold}}splits/train_RGB.txt",
        val=f"{RESULTS}/{{fold}}splits/val_RGB.txt",
        test=f"{RESULTS}/{{fold}}splits/test_RGB.txt",
    log:
        f"{RESULTS}/{{fold}}logs/splits.log",
    benchmark:
        f"{RESULTS}/{{fold}}benchmarks/splits/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    params:
        **code_version("splits"),
        splits=lambda wildcards: splits_of(wildcards.fold),
    message:
        "Dividing the tiles into parts and label fractions"
    script:
        "../scripts/make_splits.py"


rule normalise:
    input:
        tiles=INDEX,
        train=str(rules.make_splits.output.train),
    output:
        json=f"{RESULTS}/{{fold}}normalisation.json",
    log:
        f"{RESULTS}/{{fold}}logs/normalise.log",
    benchmark:
        f"{RESULTS}/{{fold}}benchmarks/normalise/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        mem_mb=SMALL["mem_mb"],
        runtime=growing(120),
    params:
        **section("sensors", "normalise"),
    message:
        "Computing the band statistics of the training tiles"
    script:
        "../scripts/normalise.py"


rule verify_split:
    input:
        index=INDEX,
        manifest=str(rules.make_splits.output.manifest),
    output:
        touch(f"{RESULTS}/{{fold}}splits/verified"),
    log:
        f"{RESULTS}/{{fold}}logs/verify_splits.log",
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    params:
        splits=lambda wildcards: splits_of(wildcards.fold),
    message:
        "Recomputing the splits and comparing them with the manifest"
    script:
        "../scripts/verify_splits.py"


rule seed_layout:
    input:
        tiles=INDEX,
        manifest=in_main_fold(rules.make_splits.output.manifest),
    output:
        directory(f"{RESULTS}/seed"),
    log:
        f"{RESULTS}/logs/seed_layout.log",
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        mem_mb=SMALL["mem_mb"],
        runtime=growing(120),
    params:
        others=OTHERS,
    message:
        "Writing tiles and lists in the layout of the published code"
    script:
        "../scripts/seed_layout.py"


rule verify_splits:
    input:
        expand(rules.verify_split.output, fold=FOLDS.values()),
        LOST,


rule splits:
    input:
        expand(rules.make_splits.output.manifest, fold=FOLDS.values()),
        LOST,
