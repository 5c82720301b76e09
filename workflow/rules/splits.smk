# Stage 4: parts, label fractions, and the band statistics of the training part.
#   input:  {results_dir}/tiles/index.csv (and the training tiles, for the statistics)
#   output: {results_dir}/splits/manifest.json, <list>_{RGB,SAR,lbl}.txt, tiles.csv (properties of each tile)
#           {results_dir}/normalisation.json
#           {results_dir}/folds/<n>/: the same for each other fold of a cross-validation
#           {results_dir}/seed/, on demand: tiles and lists in the layout of the published code


BUDGETS = [
    *(Budget("R", fraction) for fraction in CONFIG.splits.fractions),
    *(Budget("P", points) for points in CONFIG.splits.points),
]
# Lists of the label fractions and points. The marker has them in its name, so that with others the splits are made anew.
DRAWN = [b.subset(1 + k) for b in BUDGETS for k in range(CONFIG.splits.subsets)]
MARKER = f"{RESULTS}/{{fold}}splits/.lists_{json_digest(DRAWN)[:8]}"
MARKERS = expand(MARKER, fold=FOLDS.values())

KEPT = workflow.is_main_process
for FOLD in FOLDS.values():
    MADE_FROM = {"splits": parts_of(FOLD), **code_version("splits")}
    put_back_lost(
        "splits", f"{RESULTS}/{FOLD}splits", MADE_FROM, [INDEX], f"{RESULTS}/{FOLD}"
    )
    KEPT &= has_copies(archive_of(Path(RESULTS, FOLD), "splits"), MADE_FROM, [INDEX])
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
        drawn=[list_file("{fold}", name) for name in DRAWN],
        marker=MARKER,
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
        splits=lambda wildcards: parts_of(wildcards.fold),
    message:
        "Dividing the tiles into parts and label fractions"
    script:
        "../scripts/make_splits.py"


# If the splits are made anew only for other fractions, points or draws, no list that is there changes.
LIST = ancient if KEPT and not all(map(os.path.exists, MARKERS)) else str
TRAIN, VAL = (LIST(list_file("{fold}", part)) for part in ("train", "val"))
# All targets from here on need the lists of the config.
LOST = [*LOST, *MARKERS] if TRAINABLE else LOST


rule normalise:
    input:
        tiles=INDEX,
        train=TRAIN,
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
        marker=in_main_fold(MARKER),
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
