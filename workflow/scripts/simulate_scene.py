"""Simulate one demo scene."""

from pathlib import Path

from _job import logged

from tmcnet.config import DemoConfig
from tmcnet.simulate.scene import simulate_scene

with logged(snakemake):
    simulate_scene(
        DemoConfig.model_validate(snakemake.params.demo),
        snakemake.wildcards.scene,
        Path(snakemake.output.optical).parent,
    )
