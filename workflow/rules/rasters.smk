# Stages 1 to 3: what is there, on one grid, in tiles.
#   needs: the rasters named by the config's `source`
#   gives: {results_dir}/inventory.{json,csv}, virtual/ (mosaics, and files that get a CRS)
#          {results_dir}/scenes/<scene>/{optical,sar,label}.tif, alignment.json, alignment.png
#          {results_dir}/tiles/{optical,sar,label}/<tile>.tif, index.csv, classes.csv
#          and beside optical, sar and label those of the other modalities of `sensors`


rule take_inventory:
    input:
        rasters=lambda wildcards: [
            str(path) for entry in ENTRIES.values() for path in entry.files
        ],
        sheet=CONFIG.source.sheet or [],
    output:
        json=f"{RESULTS}/inventory.json",
        csv=f"{RESULTS}/inventory.csv",
        virtual=directory(f"{RESULTS}/virtual"),
    log:
        f"{RESULTS}/logs/inventory.log",
    benchmark:
        f"{RESULTS}/benchmarks/inventory/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    params:
        **section("source", "sensors", "labels"),
        data_root=DATA,
    message:
        "Checking every raster of the source"
    script:
        "../scripts/take_inventory.py"


rule align_scene:
    input:
        rules.take_inventory.output.json,
    output:
        optical=f"{RESULTS}/scenes/{{scene}}/optical.tif",
        sar=f"{RESULTS}/scenes/{{scene}}/sar.tif",
        label=f"{RESULTS}/scenes/{{scene}}/label.tif",
        others=[f"{RESULTS}/scenes/{{scene}}/{name}.tif" for name in OTHERS],
        record=f"{RESULTS}/scenes/{{scene}}/alignment.json",
        picture=f"{RESULTS}/scenes/{{scene}}/alignment.png",
    log:
        f"{RESULTS}/logs/align/{{scene}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/align/{{scene}}.tsv"
    conda:
        "../envs/tmcnet.yaml"
    # Parts of the work on a scene want one core, so scenes side by side are done sooner than one after the other.
    threads: max((workflow.cores or 1) // max(len(SCENES), 1), 1)
    resources:
        # The most measured was 1.4 GiB, with GDAL's tools (benchmarks/README.md).
        mem_mb=2048,
    params:
        **section("sensors", "labels", "align"),
    message:
        "Registering the sensors of {wildcards.scene} on one grid"
    script:
        "../scripts/align_scene.py"


rule make_tiles:
    input:
        inventory=rules.take_inventory.output.json,
        # The records hold the hashes of the rasters, which Snakemake would hash once for every output.
        scenes=expand(rules.align_scene.output.record, scene=SCENES),
    output:
        index=f"{RESULTS}/tiles/index.csv",
        classes=f"{RESULTS}/tiles/classes.csv",
    log:
        f"{RESULTS}/logs/tiles.log",
    benchmark:
        f"{RESULTS}/benchmarks/tiles/all.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: workflow.cores or 1
    params:
        **section("sensors", "labels", "tiles"),
        scenes_root=folder("scenes"),
    message:
        "Cutting tiles"
    script:
        "../scripts/make_tiles.py"


rule inventory:
    input:
        rules.take_inventory.output,


rule alignment:
    input:
        # The rasters too: no other rule asks for them, so this target is what makes lost ones anew.
        expand(rules.align_scene.output, scene=SCENES),


rule tiles:
    input:
        rules.make_tiles.output,
