"""The typed config: sections, defaults, units and limits, and the runs that follow from it."""

from tmcnet.config.data import (
    IGNORE,
    AlignConfig,
    ClassConfig,
    DemoConfig,
    LabelsConfig,
    NormaliseConfig,
    SensorConfig,
    SensorsConfig,
    SourceConfig,
    TilesConfig,
)
from tmcnet.config.pretraining import MethodConfig, PretrainConfig
from tmcnet.config.results import ComputeConfig, EvaluateConfig, MapsConfig, ReportConfig, TrackingConfig
from tmcnet.config.root import Config, load, load_files
from tmcnet.config.splits import GivenConfig, SharesConfig, SplitsConfig
from tmcnet.config.training import (
    PIXELWISE,
    RANDOM_START,
    SINGLE_SENSOR,
    Budget,
    FinetuneConfig,
    FinetuneSettings,
    ModelConfig,
    PixelwiseConfig,
    Run,
    SweepConfig,
    expand_sweep,
)

__all__ = [
    "IGNORE",
    "PIXELWISE",
    "RANDOM_START",
    "SINGLE_SENSOR",
    "AlignConfig",
    "Budget",
    "ClassConfig",
    "ComputeConfig",
    "Config",
    "DemoConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "FinetuneSettings",
    "GivenConfig",
    "LabelsConfig",
    "MapsConfig",
    "MethodConfig",
    "ModelConfig",
    "NormaliseConfig",
    "PixelwiseConfig",
    "PretrainConfig",
    "ReportConfig",
    "Run",
    "SensorConfig",
    "SensorsConfig",
    "SharesConfig",
    "SourceConfig",
    "SplitsConfig",
    "SweepConfig",
    "TilesConfig",
    "TrackingConfig",
    "expand_sweep",
    "load",
    "load_files",
]
