# Stages 1 to 3: inventory, one grid per scene, tiles. One job per scene each, then a cheap merge; ready-made tiles
# count as one scene, `tiles`, because there are too many for a job each.
#   input:  the rasters named by the config section `source`
#   output: {results_dir}/inventory/<scene>.json, merged inventory.{json,csv}
#           {results_dir}/scenes/<scene>/{<modality>,label}.tif, alignment.json, alignment.png
#           {results_dir}/tiles/{<modality>,label}/<tile>.tif, index/<scene>.{csv,json}, merged index.csv, classes.csv


BY_SCENE = (
    {"tiles": list(ENTRIES.values())} if TILED else {s: [ENTRIES[s]] for s in SCENES}
)
TRAIN_SCENES = [
    name
    for name, entries in BY_SCENE.items()
    if any(entry.role == "train" for entry in entries)
]
SOURCE = [CONFIG.source.layout, CONFIG.source.crs, CONFIG.source.remote]
# All that the stages up to the index depend on, beside the files. If something was missing here, lost tiles could hide
# a change: the index would be `ancient` behind a job that Snakemake repeats for another reason.
CUT_FROM = json_digest(
    {
        **section("sensors", "align", "tiles"),
        **code_version("inventory"),
        "source": SOURCE,
        "demo": (
            CONFIG.source.demo.model_dump() if CONFIG.source.layout == "demo" else {}
        ),
        "rows": [row_of(BY_SCENE[name]) for name in TRAIN_SCENES],
    }
)


# All at once and kept: one after the other, the requests for many scenes take minutes.
if workflow.is_main_process:
    stamps(ENTRIES.values())


rule inspect_scene:
    input:
        rasters=lambda wildcards: [
            str(f) for e in entries_of(wildcards) for f in e.files
        ],
    output:
        record=f"{RESULTS}/inventory/{{scene}}.json",
    log:
        f"{RESULTS}/logs/inventory/{{scene}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/inventory/{{scene}}.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: CONFIG.compute.raster_threads
    resources:
        mem_mb=growing(1000 + SNAKEMAKE_MB),
        runtime=growing(60),
    params:
        **section("sensors"),
        **code_version("inventory"),
        source=SOURCE,
        tiled=TILED,
        # The row of the sample sheet: another row of the same sheet changes nothing here.
        scene=lambda wildcards: json_digest(
            [*row_of(entries_of(wildcards)), stamps(entries_of(wildcards))]
        ),
    message:
        "Checking the rasters of {wildcards.scene}"
    script:
        "../scripts/inspect_scene.py"


# Scenes are used only after all are found sound. If some are new, `take_inventory` then writes the names of all to a
# file, and the first that names a scene is its gate. With one gate for all, a new scene would hide what else has
# changed: Snakemake compares the parameters of no job that depends on one whose own inputs or parameters have changed.
SOUND = f"{RESULTS}/inventory/sound"
GATES = {int(f.stem): f for f in Path(SOUND).glob("*.txt") if f.stem.isdecimal()}
GATE_OF = {
    name: f"{SOUND}/{number}.txt"
    for number, file in sorted(GATES.items(), reverse=True)
    for name in file.read_text(errors="replace").splitlines()
}
NEXT_GATE = f"{SOUND}/{max(GATES, default=0) + 1}.txt"


# Input function: the file that is there once a scene is found sound.
GATE = lambda wildcards: ancient(GATE_OF.get(wildcards.scene, NEXT_GATE))


rule take_inventory:
    input:
        inventories=expand(f"{RESULTS}/inventory/{{scene}}.json", scene=BY_SCENE),
    output:
        json=f"{RESULTS}/inventory.json",
        csv=f"{RESULTS}/inventory.csv",
        gate=[] if set(BY_SCENE) <= set(GATE_OF) else NEXT_GATE,
    log:
        f"{RESULTS}/logs/inventory.log",
    benchmark:
        f"{RESULTS}/benchmarks/inventory/all.tsv"
    localrule: True
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    params:
        **section("sensors"),
    message:
        "Comparing the scenes, and writing the inventory"
    script:
        "../scripts/take_inventory.py"


rule align_scene:
    input:
        record=f"{RESULTS}/inventory/{{scene}}.json",
        gate=GATE,
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
    threads: CONFIG.compute.raster_threads
    resources:
        # The highest peak measured is 1.4 GiB, with GDAL's tools (benchmarks/README.md).
        mem_mb=growing(2048 + SNAKEMAKE_MB),
        runtime=growing(120),
    params:
        **section("sensors", "align"),
        labels=CONFIG.labels.coding,
    message:
        "Registering the modalities of {wildcards.scene} on one grid"
    script:
        "../scripts/align_scene.py"


rule tile_scene:
    input:
        inventory=f"{RESULTS}/inventory/{{scene}}.json",
        # The record contains the hashes of the rasters, which Snakemake would hash again for every output. The job reads
        # `inventory.json` too, for the number of tiles of all scenes: one more scene cuts no other scene again.
        scene=[] if TILED else f"{RESULTS}/scenes/{{scene}}/alignment.json",
        gate=GATE,
    output:
        table=f"{RESULTS}/tiles/index/{{scene}}.csv",
        summary=f"{RESULTS}/tiles/index/{{scene}}.json",
    log:
        f"{RESULTS}/logs/tiles/{{scene}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tiles/{{scene}}.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: CONFIG.compute.raster_threads
    resources:
        mem_mb=growing(1500 + SNAKEMAKE_MB),
        runtime=growing(60),
    params:
        **section("sensors", "tiles"),
        labels=CONFIG.labels.coding,
    message:
        "Cutting {wildcards.scene} into tiles"
    script:
        "../scripts/tile_scene.py"


rule merge_index:
    input:
        tables=expand(f"{RESULTS}/tiles/index/{{scene}}.csv", scene=TRAIN_SCENES),
        summaries=expand(f"{RESULTS}/tiles/index/{{scene}}.json", scene=TRAIN_SCENES),
        inventories=expand(f"{RESULTS}/inventory/{{scene}}.json", scene=TRAIN_SCENES),
    output:
        index=f"{RESULTS}/tiles/index.csv",
        classes=f"{RESULTS}/tiles/classes.csv",
        source=f"{RESULTS}/tiles/{SOURCE_RECORD}",
    log:
        f"{RESULTS}/logs/tiles.log",
    benchmark:
        f"{RESULTS}/benchmarks/tiles/all.tsv"
    localrule: True
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    params:
        modalities=list(CONFIG.sensors),
        cut_from=CUT_FROM,
    message:
        "Writing the index of all tiles"
    script:
        "../scripts/merge_index.py"


put_back_lost(
    "tiles",
    f"{RESULTS}/tiles",
    {"modalities": list(CONFIG.sensors), "cut_from": CUT_FROM},
    [
        *expand(f"{RESULTS}/tiles/index/{{scene}}.csv", scene=TRAIN_SCENES),
        *expand(f"{RESULTS}/tiles/index/{{scene}}.json", scene=TRAIN_SCENES),
        *expand(f"{RESULTS}/inventory/{{scene}}.json", scene=TRAIN_SCENES),
    ],
)
# Lost or damaged files of these stages are made again. They come out as before, so nothing later depends on it.
# Every target asks for them: jobs that are finished would not.
LOST = (
    plain(find_lost(Path(RESULTS), BY_SCENE, SCENES))
    if workflow.is_main_process
    else []
)
if LOST:
    print(
        f"{len(LOST)} files of early stages are lost or damaged, such as {LOST[0]}. Targets by name, such as `report`, make "
        "them again; the path of a later file alone does not.",
        file=sys.stderr,
    )
RAW = {
    name: [file for e in BY_SCENE[name] for file in e.files] for name in TRAIN_SCENES
}
INDEX = f"{RESULTS}/tiles/index.csv"
if LOST and is_unchanged(Path(RESULTS), CUT_FROM, RAW):
    INDEX = ancient(INDEX)


rule inventory:
    input:
        plain(rules.take_inventory.output),
        LOST,


rule alignment:
    input:
        # With the rasters: no other rule needs them as input, so this target makes missing ones again. As a function,
        # the list of thousands of files is made for this target only, not each time that the Snakefile is read.
        lambda wildcards, files=rules.align_scene.output: expand(files, scene=SCENES),
        LOST,


rule tiles:
    input:
        plain(rules.merge_index.output),
        LOST,
