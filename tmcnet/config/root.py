"""The whole config as one typed model."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace

from pydantic import Field, model_validator

from tmcnet.config.base import Section
from tmcnet.config.data import LabelsConfig, SensorsConfig, SourceConfig
from tmcnet.config.grids import AlignConfig, NormaliseConfig, TilesConfig
from tmcnet.config.modalities import REQUIRED, only_modality
from tmcnet.config.pretraining import PretrainConfig
from tmcnet.config.results import (
    MAP_ENDINGS,
    ComputeConfig,
    EvaluateConfig,
    MapsConfig,
    ReportConfig,
    TrackingConfig,
)
from tmcnet.config.runs import Run, expand_sweep
from tmcnet.config.splits import SplitsConfig
from tmcnet.config.training import RANDOM_START, FinetuneConfig, ModelConfig


class Config(Section):
    """Everything a run depends on. The only place where defaults, units and limits stand."""

    name: str = Field("demo", pattern=r"^[\w-]+$", description="Name of the data set; the experiment in MLflow.")
    results_dir: str = Field("results", min_length=1, description="Folder of everything the workflow writes.")
    data_root: str = Field("data", min_length=1, description="Folder where relative paths of the imagery start.")
    source: SourceConfig = Field(SourceConfig(), description="Where the imagery comes from.")
    sensors: SensorsConfig = Field(..., description="The sensors and their bands.")
    labels: LabelsConfig = Field(LabelsConfig(), description="How labels are coded, and the classes.")
    align: AlignConfig = Field(AlignConfig(), description="Co-registration.")
    tiles: TilesConfig = Field(TilesConfig(), description="Tiling.")
    splits: SplitsConfig = Field(SplitsConfig(), description="Parts and label fractions.")
    normalise: NormaliseConfig = Field(NormaliseConfig(), description="Band statistics.")
    model: ModelConfig = Field(ModelConfig(), description="Size of the networks.")
    pretrain: PretrainConfig = Field(PretrainConfig(), description="Self-supervised pre-training.")
    finetune: FinetuneConfig = Field(..., description="Supervised fine-tuning.")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="Scores on the test part.")
    maps: MapsConfig = Field(MapsConfig(), description="Whole-scene maps.")
    tracking: TrackingConfig = Field(TrackingConfig(), description="MLflow.")
    report: ReportConfig = Field(ReportConfig(), description="The report.")
    compute: ComputeConfig = Field(ComputeConfig(), description="Threads, memory and accelerator.")

    @property
    def runs(self) -> list[Run]:
        """The fine-tuned runs of the sweep."""
        return expand_sweep(self.finetune.sweep)

    @property
    def map_runs(self) -> list[Run]:
        """The runs that draw whole-scene maps: of several draws of the labels with the same seed the first."""
        drawn: dict[Run, Run] = {}
        for run in self.runs:
            if run.seed in self.maps.seeds:
                drawn.setdefault(replace(run, draw=1), run)
        runs = list(drawn.values())
        if self.maps.fractions:
            return [run for run in runs if run.budget.fraction in self.maps.fractions]
        largest = {n: max(r.budget for r in runs if r.network == n) for n in {r.network for r in runs}}
        return [run for run in runs if run.budget == largest[run.network]]

    @model_validator(mode="after")
    def _sections_agree(self) -> Config:
        problems = [*_source_problems(self), *_modality_problems(self), *_sweep_problems(self)]
        problems += [*_probe_problems(self), *_map_problems(self), *_size_problems(self), *_device_problems(self)]
        if problems:
            raise ValueError("; ".join(dict.fromkeys(problems)))
        return self


def _source_problems(config: Config) -> Iterator[str]:
    if not config.labels.classes and config.source.layout != "seed":
        yield "`labels.classes` must list the classes"
    if config.splits.given_fractions and config.source.layout != "seed":
        yield "`splits.given_fractions` needs a source of layout `seed`, whose lists name the fractions"


def _modality_problems(config: Config) -> Iterator[str]:
    source, known = config.source, list(config.sensors)
    others, patterns = list(config.sensors.others), [name for name in source.patterns if name not in REQUIRED]
    unknown = [name for name in patterns if name not in known]
    for name in unknown:
        close = difflib.get_close_matches(name, [*SourceConfig.model_fields, *known], n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        yield f"`source.{name}` is unknown: `sensors` lists the modalities {known}{hint}"
    if others and source.layout in ("demo", "seed"):
        yield f"`sensors` has {others}, but layout `{source.layout}` has optical, SAR and label only"
    elif source.layout in ("scenes", "tiles") and source.sheet is None:
        missing = [name for name in others if name not in patterns]
        if missing:
            yield f"`source` has no pattern for {missing}, which `sensors` lists"
    for run in config.runs:
        modality = only_modality(run.network)
        if modality is not None and modality not in known:
            yield f"`finetune.sweep` names the network `{run.network}`; the modalities are {known}"
    for name, method in config.pretrain.methods.items():
        if method.modality not in ("both", *known):
            yield f"`pretrain.methods.{name}.modality` is `{method.modality}`; it is `both` or one of {known}"


def _device_problems(config: Config) -> Iterator[str]:
    size, devices = config.pretrain.batch_size, config.compute.devices
    if size % devices:
        yield f"`pretrain.batch_size` ({size}) must be a multiple of `compute.devices` ({devices})"


def _sweep_problems(config: Config) -> Iterator[str]:
    known = sorted({RANDOM_START, *config.pretrain.methods, *config.pretrain.weights})
    for run in config.runs:
        if run.method not in known:
            yield f"`finetune.sweep` names the method `{run.method}`; known are {known}"
        if run.budget.fraction is not None and run.budget.fraction not in config.splits.fractions:
            yield (
                f"`finetune.sweep` asks for {run.budget.fraction:g} % of the labels; "
                f"`splits.fractions` has {config.splits.fractions}"
            )
        if run.budget.points is not None and run.budget.points not in config.splits.points:
            yield (
                f"`finetune.sweep` asks for {run.budget.points} points of each class; "
                f"`splits.points` has {config.splits.points}"
            )
        if not 1 <= run.draw <= config.splits.subsets:
            yield (
                f"`finetune.sweep` asks for draw {run.draw} of the labels (its `subsets`, or else its seeds); "
                f"`splits.subsets` is {config.splits.subsets}"
            )


def _probe_problems(config: Config) -> Iterator[str]:
    probe = config.pretrain.probe
    if probe.every is not None and probe.fraction not in config.splits.fractions:
        yield (
            f"`pretrain.probe` asks for {probe.fraction:g} % of the labels; "
            f"`splits.fractions` has {config.splits.fractions}"
        )


def _map_problems(config: Config) -> Iterator[str]:
    runs = [run.name for run in config.runs]
    for model in config.maps.models:
        if model in runs:
            yield f"`maps.models` has the name `{model}`, which is that of a run of `finetune.sweep`"
        taken = [name for name in (*runs, *config.maps.models) for end in MAP_ENDINGS if model == f"{name}{end}"]
        if taken:
            yield f"`maps.models` has the name `{model}`; a map that belongs to `{taken[0]}` is called so"


def _size_problems(config: Config) -> Iterator[str]:
    maps, tile = config.maps, config.tiles.size
    if maps.overlap * 2 > maps.window:
        yield f"`maps.overlap` ({maps.overlap}) must be at most half of `maps.window` ({maps.window})"
    if config.source.layout not in ("demo", "scenes"):
        return
    by_pixels = config.splits.method == "blocks" and config.splits.block_metres is None
    if by_pixels and config.splits.block_size < tile:
        yield f"`splits.block_size` ({config.splits.block_size}) must be at least `tiles.size` ({tile})"
    if config.finetune.crop_size > tile:
        yield f"`finetune.crop_size` ({config.finetune.crop_size}) must not exceed `tiles.size` ({tile})"
