# Stage 4: parts, label fractions, and the band statistics of the training part.
#   needs: {results_dir}/tiles/index.csv (and the training tiles, for the statistics)
#   gives: {results_dir}/splits/manifest.json, <list>_{RGB,SAR,lbl}.txt and tiles.csv (what each tile was like)
#          {results_dir}/normalisation.json
#          all of these once more in {results_dir}/folds/<n>/ for every other fold of a cross-validation
#          {results_dir}/seed/, on demand: tiles and lists in the layout of the published code


rule make_splits:
    input:
        index=rules.make_tiles.output.index,
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
    params:
        splits=splits_of,
    message:
        "Dividing the tiles into parts and label fractions"
    script:
        "../scripts/make_splits.py"


rule normalise:
    input:
        tiles=rules.make_tiles.output.index,
        train=rules.make_splits.output.train,
    output:
        json=f"{RESULTS}/{{fold}}normalisation.json",
    log:
        f"{RESULTS}/{{fold}}logs/normalise.log",
    benchmark:
        f"{RESULTS}/{{fold}}benchmarks/normalise/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    params:
        **section("sensors", "normalise"),
    message:
        "Taking the band statistics of the training tiles"
    script:
        "../scripts/normalise.py"


rule verify_split:
    input:
        index=rules.make_tiles.output.index,
        manifest=rules.make_splits.output.manifest,
    output:
        touch(f"{RESULTS}/{{fold}}splits/verified"),
    log:
        f"{RESULTS}/{{fold}}logs/verify_splits.log",
    conda:
        "../envs/tmcnet.yaml"
    params:
        splits=splits_of,
    message:
        "Recomputing the splits and saying what changed"
    script:
        "../scripts/verify_splits.py"


rule seed_layout:
    input:
        tiles=rules.make_tiles.output.index,
        manifest=at_home(rules.make_splits.output.manifest),
    output:
        directory(f"{RESULTS}/seed"),
    log:
        f"{RESULTS}/logs/seed_layout.log",
    conda:
        "../envs/tmcnet.yaml"
    params:
        others=OTHERS,
    message:
        "Laying tiles and lists out as the published code expects them"
    script:
        "../scripts/seed_layout.py"


rule verify_splits:
    input:
        expand(rules.verify_split.output, fold=FOLDS.values()),


rule splits:
    input:
        expand(rules.make_splits.output.manifest, fold=FOLDS.values()),
