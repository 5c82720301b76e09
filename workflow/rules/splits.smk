# Stage 4: parts, label fractions, and the band statistics of the training part.
#   needs: {results_dir}/tiles/index.csv (and the training tiles, for the statistics)
#   gives: {results_dir}/splits/manifest.json, <list>_{RGB,SAR,lbl}.txt and tiles.csv (what each tile was like)
#          {results_dir}/normalisation.json
#          {results_dir}/seed/, on demand: tiles and lists in the layout of the published code


rule make_splits:
    input:
        index=rules.make_tiles.output.index,
    output:
        manifest=f"{RESULTS}/splits/manifest.json",
        tiles=f"{RESULTS}/splits/tiles.csv",
        train=f"{RESULTS}/splits/train_RGB.txt",
        val=f"{RESULTS}/splits/val_RGB.txt",
        test=f"{RESULTS}/splits/test_RGB.txt",
    log:
        f"{RESULTS}/logs/splits.log",
    benchmark:
        f"{RESULTS}/benchmarks/splits/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    params:
        **section("splits"),
    message:
        "Dividing the tiles into parts and label fractions"
    script:
        "../scripts/make_splits.py"


rule normalise:
    input:
        tiles=rules.make_tiles.output.index,
        train=rules.make_splits.output.train,
    output:
        json=f"{RESULTS}/normalisation.json",
    log:
        f"{RESULTS}/logs/normalise.log",
    benchmark:
        f"{RESULTS}/benchmarks/normalise/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    params:
        **section("sensors", "normalise"),
    message:
        "Taking the band statistics of the training tiles"
    script:
        "../scripts/normalise.py"


rule verify_splits:
    input:
        index=rules.make_tiles.output.index,
        manifest=rules.make_splits.output.manifest,
    output:
        touch(f"{RESULTS}/splits/verified"),
    log:
        f"{RESULTS}/logs/verify_splits.log",
    conda:
        "../envs/tmcnet.yaml"
    params:
        **section("splits"),
    message:
        "Recomputing the splits and saying what changed"
    script:
        "../scripts/verify_splits.py"


rule seed_layout:
    input:
        tiles=rules.make_tiles.output.index,
        manifest=rules.make_splits.output.manifest,
    output:
        directory(f"{RESULTS}/seed"),
    log:
        f"{RESULTS}/logs/seed_layout.log",
    conda:
        "../envs/tmcnet.yaml"
    message:
        "Laying tiles and lists out as the published code expects them"
    script:
        "../scripts/seed_layout.py"


rule splits:
    input:
        rules.make_splits.output.manifest,
