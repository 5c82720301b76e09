# Stage 0, for the demo only: simulated scenes.
#   input:  the config
#   output: {data_root}/demo/<scene>/{optical,sar,label}.tif, truth.npz


DEMO = Path(DATA, "demo")


rule simulate_scene:
    output:
        optical=f"{DEMO}/{{scene}}/optical.tif",
        sar=f"{DEMO}/{{scene}}/sar.tif",
        label=f"{DEMO}/{{scene}}/label.tif",
        truth=f"{DEMO}/{{scene}}/truth.npz",
    log:
        f"{RESULTS}/logs/simulate/{{scene}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/simulate/{{scene}}.tsv"
    conda:
        "../envs/tmcnet.yaml"
    threads: 1
    resources:
        **SMALL,
    params:
        demo=CONFIG.source.demo.model_dump(mode="json"),
    message:
        "Simulating the scene {wildcards.scene}"
    script:
        "../scripts/simulate_scene.py"
