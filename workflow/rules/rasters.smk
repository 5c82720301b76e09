# Stages 1 to 3: inventory, one grid per scene, tiles.
#   input:  the rasters named by the config section `source`
#   output: {results_dir}/inventory.{json,csv}
#           {results_dir}/scenes/<scene>/{<modality>,label}.tif, alignment.json, alignment.png
#           {results_dir}/tiles/{<modality>,label}/<tile>.tif, index.csv, classes.csv


rule take_inventory:
    input:
        rasters=lambda wildcards: [
            str(path) for entry in ENTRIES.values() for path in entry.files
        ],
        sheet=CONFIG.source.sheet or [],
    output:
        json=f"{RESULTS}/inventory.json",
        csv=f"{RESULTS}/inventory.csv",
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
        rasters=[
            f"{RESULTS}/scenes/{{scene}}/{name}.tif"
            for name in (*CONFIG.sensors, "label")
        ],
        record=f"{RESULTS}/scenes/{{scene}}/alignment.json",
        picture=f"{RESULTS}/scenes/{{scene}}/alignment.png",
    log:
        f"{RESULTS}/logs/align/{{scene}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/align/{{scene}}.tsv"
    conda:
        "../envs/tmcnet.yaml"
    # Parts of a job use one core only, so several scenes at a time are faster than one after the other.
    threads: max((workflow.cores or 1) // max(len(SCENES), 1), 1)
    resources:
        # The highest peak measured is 1.4 GiB, with GDAL's tools (benchmarks/README.md).
        mem_mb=2048,
    params:
        **section("sensors", "labels", "align"),
    message:
        "Registering the modalities of {wildcards.scene} on one grid"
    script:
        "../scripts/align_scene.py"


rule make_tiles:
    input:
        inventory=rules.take_inventory.output.json,
        # The records contain the hashes of the rasters, which Snakemake would hash again for every output.
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
        # With the rasters: no other rule needs them as input, so this target makes missing ones again.
        expand(rules.align_scene.output, scene=SCENES),


rule tiles:
    input:
        rules.make_tiles.output,
