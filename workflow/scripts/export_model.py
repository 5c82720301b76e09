"""Export one trained network as ONNX, with a model card."""

from pathlib import Path

from _job import logged

from tmcnet.evaluate.export import export_model

with logged(snakemake):
    export_model(
        weights=Path(snakemake.input.weights),
        out=Path(snakemake.output.model).parent,
        tiles_root=Path(snakemake.input.tiles).parent,
        manifest=Path(snakemake.input.manifest),
        metrics=Path(snakemake.input.metrics),
    )
